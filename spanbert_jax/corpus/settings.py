"""Settings of corpus preparation: the arguments of `prepare`, and the section `data` of a config."""
import dataclasses

from spanbert_jax.common.settings import Settings, qualified, require, setting
from spanbert_jax.corpus.sources import file_formats
from spanbert_jax.text import CHARACTER_COVERAGE, MAX_VOCAB_SIZE, MIN_VOCAB_SIZES, TOKENIZER_MODELS

MAX_LENGTH = 65_536  # positions in a row
# Setting -> `strip_accents` of BERT's normalizer.
ACCENTS = {"auto": None, "keep": False, "strip": True}


@dataclasses.dataclass(frozen=True)
class CorpusSettings(Settings):
    """Sources of a corpus, and how their text becomes rows."""
    sources: tuple[str, ...] = setting(
        (), "Files, directories, globs, 'python' (the prose in this Python installation) or 'tfds:NAME[:SPLIT]'.")
    tokenizer: str = setting("", "vocab.txt, tokenizer.json or a directory with one.", replaces=["vocab_size"])
    vocab_size: int = setting(0, "Size of the vocabulary to train if no tokenizer is given.", minimum=0,
                              maximum=MAX_VOCAB_SIZE, replaces=["tokenizer"])
    tokenizer_model: str = setting(
        "wordpiece", "Kind of a vocabulary to train. wordpiece: as in BERT; bpe: of bytes, as in RoBERTa and "
        "ModernBERT; unigram: as in SentencePiece and XLM-R.", choices=tuple(TOKENIZER_MODELS))
    character_coverage: float = setting(
        CHARACTER_COVERAGE, "Share of the text's characters that get an entry of a trained vocabulary, the most "
        "frequent first; words with others are [UNK]. A vocabulary of bytes has them all.", above=0, maximum=1)
    accents: str = setting(
        "auto", "Accents and other combining marks in the text of a trained vocabulary. auto: stripped if it is "
        "lower-cased, as in BERT.", choices=tuple(ACCENTS))
    format: str = setting(
        "auto", "Format of the files. documents: one per file, blank lines between paragraphs; blank-lines: blank "
        "lines between documents; sentences: one per line, blank lines between documents; wikiextractor: <doc ...>; "
        "auto: by the file's name, else by its first characters.", choices=file_formats)
    text_field: str = setting("text", "JSON field, table column or TFDS feature with the text.")
    annotation_field: str = setting("", "JSON field with [[start, end], ...] character offsets of entities or phrases.")
    length: int = setting(512, "Positions in a row, S.", minimum=8, maximum=MAX_LENGTH)
    blocks: str = setting(
        "sentences", "Blocks of text. sentences: whole sentences up to the length; contiguous: windows; pairs: two "
        "texts with a next-sentence label.", choices=("sentences", "contiguous", "pairs"))
    pack: bool = setting(False, "Put several blocks in a row.")
    validation_fraction: float = setting(0.01, "Share of the characters held out, by document.", minimum=0, maximum=0.9)
    short_sequence_probability: float = setting(
        0.0, "Probability of a shorter target length for a document; only for pairs.", minimum=0, maximum=1)

    def validate(self, path: str) -> None:
        """Checks every field, and that pairs are not packed."""
        super().validate(path)
        least = MIN_VOCAB_SIZES[self.tokenizer_model]
        require(self.vocab_size == 0 or self.vocab_size >= least, qualified(path, "vocab_size"), self.vocab_size,
                f"must be at least {least} with {qualified(path, 'tokenizer_model')}={self.tokenizer_model}")
        require(not (self.pack and self.blocks == "pairs"), qualified(path, "pack"), True,
                "a pair fills its row; leave out pack, or take other blocks than 'pairs'")
