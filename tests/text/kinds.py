"""Small tokenizers of every kind, trained by the `tokenizers` library, as directories that transformers reads."""
import functools
import inspect
import json
import pathlib

import pytest
import tokenizers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

KINDS = ("roberta", "modernbert", "xlmr", "gemma")
TEXTS = [line for line in inspect.getdoc(tokenizers.Tokenizer).splitlines() if line] + [
    "The president of France lives in Paris, and the old house is near the river.",
    "Élise naît à Zürich: über 3 Äpfel.",
    "東京都に住んでいる。東京は大きい。", "중국어와 한국어", "He said: \"don't go (now)!\" twice."] * 3


@functools.cache
def trained(kind: str) -> Tokenizer:
    """A tokenizer of a kind; a model's special tokens are in its order."""
    if kind in ("roberta", "modernbert"):
        names = (["<s>", "<pad>", "</s>", "<unk>", "<mask>"] if kind == "roberta"
                 else ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"])
        made = Tokenizer(models.BPE())
        made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        made.normalizer = normalizers.NFC() if kind == "modernbert" else None
        made.train_from_iterator(TEXTS, trainers.BpeTrainer(
            vocab_size=500, special_tokens=names, show_progress=False,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
        if kind == "roberta":
            made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
        else:
            made.post_processor = around("[CLS]", "[SEP]", made, "[CLS] $A [SEP] $B:1 [SEP]:1")
    elif kind == "xlmr":
        names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        made = Tokenizer(models.Unigram())
        made.normalizer = normalizers.NFKC()
        made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
        made.decoder = decoders.Metaspace()
        made.train_from_iterator(TEXTS, trainers.UnigramTrainer(
            vocab_size=300, special_tokens=names[:4], unk_token="<unk>", show_progress=False))
        made.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True, normalized=False)])
        made.post_processor = around("<s>", "</s>", made, "<s> $A </s> </s> $B </s>")
    else:  # BPE with the bytes of unknown characters, and no pre-tokenizer that makes words
        names = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
        made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        made.normalizer = normalizers.Replace(" ", "▁")
        made.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # in training only
        made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        made.train_from_iterator([text for text in TEXTS if text.isascii()], trainers.BpeTrainer(
            vocab_size=500, special_tokens=names + [f"<0x{byte:02X}>" for byte in range(256)], show_progress=False,
            max_token_length=6))
        made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        values = json.loads(made.to_str())
        values["added_tokens"] = values["added_tokens"][:5]  # bytes are ordinary entries
        made = Tokenizer.from_str(json.dumps(values))
        made.post_processor = around("<bos>", "<eos>", made, "<bos> $A <eos> $B:1 <eos>:1")
    return made


def around(cls: str, sep: str, made: Tokenizer, pair: str) -> processors.TemplateProcessing:
    return processors.TemplateProcessing(single=f"{cls} $A {sep}", pair=pair, special_tokens=[
        (token, made.token_to_id(token)) for token in (cls, sep)])


CONFIGS = {
    "roberta": {"tokenizer_class": "RobertaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>",
                "sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"},
    "modernbert": {"tokenizer_class": "PreTrainedTokenizerFast", "cls_token": "[CLS]", "sep_token": "[SEP]",
                   "pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"},
    "xlmr": {"tokenizer_class": "XLMRobertaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>",
             "sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": {
                 "__type": "AddedToken", "content": "<mask>", "lstrip": True, "rstrip": False, "single_word": False,
                 "normalized": False, "special": True}},
    "gemma": {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<bos>", "eos_token": "<eos>",
              "cls_token": "<bos>", "sep_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>",
              "mask_token": "<mask>"}}


def write(kind: str, folder: pathlib.Path) -> pathlib.Path:
    """Writes the files of a tokenizer, and returns the folder."""
    folder.mkdir(exist_ok=True)
    trained(kind).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(CONFIGS[kind]))
    return folder


def load_by_transformers(folder: pathlib.Path, **options):
    """The tokenizer of a folder as transformers loads it; without transformers the test is skipped."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    return transformers.AutoTokenizer.from_pretrained(folder, **options)
