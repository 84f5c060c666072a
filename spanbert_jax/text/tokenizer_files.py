"""Tokenizers from files: tokenizer.json or BERT's vocab.txt, with the files that transformers writes beside them."""
import codecs
import io
import json
import logging
import math
import pathlib
import reprlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from spanbert_jax.common import json_files
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.formatting import format_plural
from spanbert_jax.common.manifest import require_intact
from spanbert_jax.common.paths import user_path
from spanbert_jax.text.special_tokens import (
    REQUIRED_ROLES,
    ROLES,
    SPECIAL_TOKENS,
    set_special_tokens,
    special_tokens,
)
from spanbert_jax.text.tokenizer import bert_normalizer, build_tokenizer, is_lowercasing
from spanbert_jax.text.tokenizer_components import MAX_TOKEN_CHARACTERS, MAX_VOCAB_SIZE, build

logger = logging.getLogger("spanbert_jax")
CONFIG_FILE = "tokenizer_config.json"
_CASED_SHARE = 0.01
# Classes of transformers, without "Fast", that tokenize as BERT's does.
_BERT_CLASSES = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "PreTrainedTokenizer")
# Field of tokenizer_config.json -> field of BERT's normalizer.
_NORMALIZER_FIELDS = {"do_lower_case": "lowercase", "strip_accents": "strip_accents",
                      "tokenize_chinese_chars": "handle_chinese_chars"}
# Field of the files of transformers -> role; bos and eos where there is no cls and sep.
_ROLE_OF_FIELD = {"bos_token": "cls", "eos_token": "sep", **{f"{role}_token": role for role in ROLES}}
_PREFIX_SPACE = "add_prefix_space"
# Of a file; that of a vocabulary of 260,000 entries, with 580,000 merges, has 40 MB and 2,000,000 values.
_MOST_BYTES, _MOST_VALUES = 128 << 20, 5_000_000
ADDED_TOKEN_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def load_tokenizer(path: str | pathlib.Path, lowercase: bool | None = None) -> Tokenizer:
    """Loads a tokenizer. Its ids equal those of Hugging Face's AutoTokenizer.

    Special tokens have roles, not names; see `special_tokens`. The tokens that pad, are unknown and mask are those that
    tokenizer_config.json or special_tokens_map.json name, if they do. Where the post-processor does not put a cls and a
    sep token around a text, they are put there, and a warning is logged.

    Args:
      path: a tokenizer.json of any kind, BERT's vocab.txt, or a directory with one of them (tokenizer.json is
        preferred). A tokenizer_config.json beside it is followed as in transformers, where its `do_lower_case`,
        `strip_accents` and `tokenize_chinese_chars` take precedence over tokenizer.json with BERT's normalizer, and
        `add_prefix_space` over that with GPT-2's byte-level words. The tokens of special_tokens_map.json and
        tokenizer_config.json, and beside a vocab.txt of added_tokens.json, are added to the vocabulary.
      lowercase: whether the tokenizer of a vocab.txt lower-cases. None uses `do_lower_case` of tokenizer_config.json;
        without that, it lower-cases if no token except those in brackets has a capital letter, and keeps accents and
        other marks if tokens have them. A tokenizer.json defines it itself. If either file asks for lower-casing but
        a WordPiece vocabulary has capital letters, case is kept and a warning is logged: such files come with models
        derived from SpanBERT, and lower-casing would make half of their vocabulary unreachable.

    Raises:
      UserError: the file does not exist, is no tokenizer, lacks a special token, or a tokenizer.json contradicts
        `lowercase`, or a file in its directory differs from the directory's manifest.
    """
    file = _tokenizer_file(user_path(path))
    require_intact(file.parent)
    config = _read_object(file.with_name(CONFIG_FILE))
    _check_config(file, config)
    if file.suffix == ".json":
        return _load_json(file, config, lowercase)
    vocab = _read_vocab(file)
    _check_special(file, config, vocab)
    if lowercase is None:
        lowercase = _decide_lowercase(file, config.get("do_lower_case"), vocab)
    normalizer = bert_normalizer(lowercase, config.get("strip_accents"))
    if lowercase and not {"do_lower_case", "strip_accents"} & config.keys() and _has_marks(vocab):
        normalizer.strip_accents = False
    normalizer.handle_chinese_chars = config.get("tokenize_chinese_chars") is not False
    added = [token for token in _added_tokens(file, config, vocab) if token.content not in SPECIAL_TOKENS]
    tokenizer = build_tokenizer(vocab, normalizer)
    tokenizer.add_special_tokens([token for token in added if token.special])
    tokenizer.add_tokens([token for token in added if not token.special])
    return tokenizer


def read_json(file: pathlib.Path) -> Tokenizer:
    """Reads a tokenizer.json of any kind, without padding and truncation. Raises UserError if it is not one."""
    return _build(_read_tokenizer(file), f"tokenizer {file}: not a tokenizer.json")


def read_vocab_and_merges(folder: pathlib.Path) -> Tokenizer:
    """Reads the BPE of a vocab.json and a merges.txt, as GPT-2 has them. Raises UserError if they are none."""
    merges = _read_bytes(folder / "merges.txt").decode("utf-8", "replace").split("\n")
    values = {"type": "BPE", "vocab": _read_tokenizer(folder / "vocab.json"),
              "merges": [line for line in map(str.rstrip, merges) if line and not line.startswith("#version")]}
    return _build({"model": values}, f"{folder}: vocab.json and merges.txt are not a GPT-2 tokenizer")


def parse_tokenizer(text: str, name: str) -> Tokenizer:
    """Builds a tokenizer of the text of a tokenizer.json. Raises UserError, which has the name, if it is none."""
    try:
        values = json_files.decode_json(text, _MOST_VALUES)
    except json_files.JsonError:
        values = {}
    return _build(values if isinstance(values, dict) else {}, f"{name}: not a tokenizer.json")


def _build(values: Mapping[str, Any], message: str) -> Tokenizer:
    try:
        return build(values)
    except UserError as error:
        raise UserError(f"{message} ({error})") from None


def _tokenizer_file(path: pathlib.Path) -> pathlib.Path:
    if path.is_dir():
        for name in ("tokenizer.json", "vocab.txt"):
            if (path / name).is_file():
                return path / name
        raise UserError(f"tokenizer {path}: the directory holds neither tokenizer.json nor vocab.txt; transformers "
                        "writes the first: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)")
    if not path.is_file():
        raise UserError(f"tokenizer {path}: no such file; give a vocab.txt, a tokenizer.json or a directory with one")
    return path


def _read_object(file: pathlib.Path) -> dict[str, Any]:
    """Returns the JSON object in a file; {} if there is no such file."""
    if not file.is_file():
        return {}
    return json_files.read_json(file, dict[str, Any], "fix or remove it")


def _read_tokenizer(file: pathlib.Path) -> dict[str, Any]:
    """Returns the JSON object in the file of a tokenizer, which may have more values than other files."""
    try:
        text = _read_bytes(file).decode("utf-8-sig")
        values = json_files.decode_json(text, _MOST_VALUES)
        if "\\u" in text:  # perhaps half a surrogate pair, which the library does not accept
            json.dumps(values, ensure_ascii=False).encode()
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise UserError(f"tokenizer {file}: not a JSON object; fix or remove it")
    return values


def _read_bytes(file: pathlib.Path) -> bytes:
    """The content of a file. Raises UserError if it is unreadable, or larger than any vocabulary."""
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise UserError(f"tokenizer {file}: more than {_MOST_BYTES >> 20} MiB, which no vocabulary has; fetch it "
                            "again")
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"tokenizer {file}: cannot be read ({error.strerror})") from None


def _check_config(file: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Raises UserError for a wrong value, or if a tokenizer of another kind than BERT's is stated beside vocab.txt."""
    for field in (*_NORMALIZER_FIELDS, _PREFIX_SPACE):
        value = config.get(field)
        _require(isinstance(value, bool | None), f"{file.with_name(CONFIG_FILE)}: {field}", value,
                 "true, false or null")
    if file.suffix == ".json":
        return  # it defines the tokenizer
    stated = config.get("tokenizer_class")
    if stated is None and file.with_name("config.json").is_file():
        stated = _read_object(file.with_name("config.json")).get("tokenizer_class")
    if stated is not None and str(stated).removesuffix("Fast") not in _BERT_CLASSES:
        raise UserError(f"tokenizer {file}: its tokenizer_class is {stated}, which splits words in another way; only "
                        f"{', '.join(_BERT_CLASSES[:-1])} can be read without a tokenizer.json")


def _load_json(file: pathlib.Path, config: Mapping[str, Any], lowercase: bool | None) -> Tokenizer:
    tokenizer = read_json(file)
    normalizer = tokenizer.normalizer
    is_bert = isinstance(normalizer, normalizers.BertNormalizer)
    if is_bert and config.get("tokenizer_class") != "PreTrainedTokenizerFast":  # that class has no such arguments
        _follow_config(file, config, normalizer)
    if config and isinstance(words := tokenizer.pre_tokenizer, pre_tokenizers.ByteLevel):
        words.add_prefix_space = bool(config.get(_PREFIX_SPACE))  # as in transformers, also where it is not stated
    _set_special_tokens(file, config, tokenizer)
    own = getattr(normalizer, "lowercase", None)
    vocab = tokenizer.get_vocab(with_added_tokens=False)
    is_wordpiece = isinstance(tokenizer.model, models.WordPiece)
    if lowercase is None and is_wordpiece and is_lowercasing(tokenizer) and _is_cased(vocab):
        _warn_case_is_kept(file, vocab)
        if is_bert:
            normalizer.lowercase = False
        else:
            tokenizer.normalizer = bert_normalizer(lowercase=False)
    if lowercase is not None and own is not None and own != lowercase:
        raise UserError(f"tokenizer {file}: lowercase is {own} in the file but {lowercase} was asked; leave it unset")
    return tokenizer


def _set_special_tokens(file: pathlib.Path, config: Mapping[str, Any], tokenizer: Tokenizer) -> None:
    """Finds the special tokens of a tokenizer.json by role, adds those that its vocabulary lacks, and sets them."""
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    listed = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    missing = sorted((token for token in _added_tokens(file, config, vocab) if token.content not in listed),
                     key=lambda token: vocab[token.content])
    for token in missing:
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
    stated = {field: token["content"] for values_file, values in _token_files(file, config)
              for field in _ROLE_OF_FIELD for token in _as_tokens(f"{values_file}: {field}", values.get(field))}
    roles = {role: stated[field] for field, role in _ROLE_OF_FIELD.items() if field in stated}
    found = special_tokens(tokenizer)
    # Around texts stand the tokens of the post-processor, whatever the files call them.
    roles |= {role: token for role, token in found.items() if role in ("cls", "sep") or role not in roles}
    for role in REQUIRED_ROLES:
        if role not in roles:
            field, usual = f"{role}_token", ROLES[role]
            raise UserError(f"tokenizer {file}: no {role} token: {CONFIG_FILE} has no {field}, and the vocabulary no "
                            f"{' or '.join(usual[:2])}; add \"{field}\" to {CONFIG_FILE}, with the token that the "
                            f"model was trained with, or a new one, such as \"{usual[0]}\"")
    listed |= {token.content for token in missing}
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in roles.values()
                                  if token not in listed])
    if set_special_tokens(tokenizer, roles):
        logger.warning("tokenizer %s: its post-processor does not put one %s before and one %s after a text; here they "
                       "are put there", file, roles["cls"], roles["sep"])


def _follow_config(file: pathlib.Path, config: Mapping[str, Any], normalizer: normalizers.BertNormalizer) -> None:
    """Sets a normalizer as tokenizer_config.json states it, and logs the differences, as transformers does not."""
    for field, name in _NORMALIZER_FIELDS.items():
        before, stated = getattr(normalizer, name), config.get(field)
        if field in config and stated != before and (stated is not None or name == "strip_accents"):
            setattr(normalizer, name, stated)
            logger.warning("tokenizer %s: %s is %s in it and %s in %s, which is followed as in transformers", file,
                           name, before, stated, CONFIG_FILE)


def _read_vocab(file: pathlib.Path) -> dict[str, int]:
    """Returns the ids of the entries. Of an entry that occurs more than once, the last id counts as in transformers."""
    content = _read_bytes(file)
    try:
        tokens = [line.rstrip("\n") for line in io.StringIO(content.decode("utf-8-sig"), newline=None)]
    except UnicodeDecodeError as error:
        raise UserError(f"tokenizer {file}: not UTF-8 (byte {error.start}); a vocab.txt has one token per "
                        "line") from None
    if content.startswith(codecs.BOM_UTF8):
        logger.warning("tokenizer %s: the byte-order mark at its start is ignored", file)
    _require(len(tokens) <= MAX_VOCAB_SIZE, f"{file}: number of lines", len(tokens), f"at most {MAX_VOCAB_SIZE:,}")
    vocab = {token: i for i, token in enumerate(tokens)}
    if repeated := [i for i, token in enumerate(tokens) if vocab[token] != i]:
        first = repeated[0]
        logger.warning("tokenizer %s: %s with an entry of a later one, such as %r in lines %d and %d: its last line "
                       "counts, as in transformers", file, format_plural(len(repeated), "line"), tokens[first],
                       first + 1, vocab[tokens[first]] + 1)
    return vocab


def _check_special(file: pathlib.Path, config: Mapping[str, Any], vocab: Mapping[str, int]) -> None:
    """Raises UserError unless a vocab.txt has BERT's five special tokens, and no file names another in their place.

    Such as <mask>, which transformers would mask with, although the vocabulary has [MASK] too.
    """
    missing = [token for token in SPECIAL_TOKENS if token not in vocab]
    if missing:
        raise UserError(f"tokenizer {file}: special tokens missing: {', '.join(missing)}; BERT's five are needed")
    for values_file, values in _token_files(file, config):
        for role, (expected, *_) in ROLES.items():
            for token in _as_tokens(f"{values_file}: {role}_token", values.get(f"{role}_token")):
                _require(token["content"] == expected, f"{values_file}: {role}_token", token["content"],
                         f"{expected}, with the id in the vocabulary that the model was trained with,")


def _added_tokens(file: pathlib.Path, config: Mapping[str, Any], vocab: dict[str, int]) -> list[AddedToken]:
    """Returns the tokens that the files beside a tokenizer's add, and gives those that it lacks their ids in `vocab`.

    Strings become tokens as in transformers: special ones are found in the text as it is, others in the normalized one.
    """
    special = {token["content"]: {**token, "special": True}
               for values_file, values in _token_files(file, config) for token in _named_tokens(values_file, values)}
    found: dict[str, dict[str, Any]] = {}
    decoder = config.get("added_tokens_decoder") or {}
    decoder_place = f"{file.with_name(CONFIG_FILE)}: added_tokens_decoder"
    _require(isinstance(decoder, dict), decoder_place, decoder, "an object of ids and their tokens")
    for number, value in decoder.items():
        for token in _as_tokens(f"{decoder_place}[{number!r}]", value):
            found[token["content"]] = {
                **token, "id": _token_id(decoder_place, int(number) if number.isdecimal() else number)}
    ids_file = file.with_name("added_tokens.json")
    for content, number in _read_object(ids_file).items():
        _as_tokens(str(ids_file), content)
        found.setdefault(content, {"normalized": True, **special.get(content, {}),
                                   "id": _token_id(f"{ids_file}: {content!r}", number)})
    found = special | found
    names = {number: token for token, number in vocab.items()}
    for content in sorted(found, key=lambda content: found[content].get("id", math.inf)):
        number = vocab.get(content, found[content].get("id", max(vocab.values()) + 1))
        if names.setdefault(number, content) != content:
            raise UserError(f"tokenizer {file}: id {number} is {names[number]!r} there and {content!r} among the added "
                            "tokens beside it; they do not belong together")
        vocab[content] = number
    return [AddedToken(content, **{name: bool(flags.get(name)) for name in ADDED_TOKEN_FLAGS})
            for content, flags in found.items()]


def _token_files(file: pathlib.Path, config: Mapping[str, Any]) -> list[tuple[pathlib.Path, Mapping[str, Any]]]:
    """The files beside a tokenizer that may name its special tokens, with their content; the last takes precedence."""
    special_map = file.with_name("special_tokens_map.json")
    return [(special_map, _read_object(special_map)), (file.with_name(CONFIG_FILE), config)]


def _named_tokens(file: pathlib.Path, values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The special tokens that special_tokens_map.json or tokenizer_config.json name, with their flags."""
    for name, value in values.items():
        if name.endswith("_token") and not isinstance(value, bool):  # such as add_bos_token
            yield from _as_tokens(f"{file}: {name}", value)
    for name in ("additional_special_tokens", "extra_special_tokens"):
        listed = values.get(name) or []
        listed = list(listed.values()) if isinstance(listed, dict) and name.startswith("extra") else listed
        _require(isinstance(listed, list), f"{file}: {name}", listed, "a list of tokens")
        for value in listed:
            yield from _as_tokens(f"{file}: {name}", value)


def _as_tokens(place: str, value: Any) -> list[dict[str, Any]]:
    """The token, as an object with its content, that a field holds; none for null. `place` is for messages."""
    token = {"content": value} if isinstance(value, str) else value
    _require(value is None or (isinstance(token, dict) and isinstance(token.get("content"), str)), place, value,
             "a token, which is a text or an object with the text in 'content'")
    _require(value is None or len(token["content"]) <= MAX_TOKEN_CHARACTERS, place, value,
             f"a token of at most {MAX_TOKEN_CHARACTERS:,} characters")
    return [] if value is None else [token]


def _token_id(place: str, number: Any) -> int:
    _require(type(number) is int and 0 <= number < MAX_VOCAB_SIZE, place, number, f"an id below {MAX_VOCAB_SIZE:,}")
    return number


def _require(holds: bool, place: str, value: Any, needed: str) -> None:
    """Raises UserError, naming a file and its field, unless a condition holds."""
    if not holds:
        raise UserError(f"tokenizer {place} is {reprlib.repr(value)}; {needed} is needed")


def _decide_lowercase(file: pathlib.Path, stated: bool | None, vocab: Mapping[str, int]) -> bool:
    if stated and _is_cased(vocab):
        _warn_case_is_kept(file, vocab)
        return False
    return not _capitals(vocab) if stated is None else bool(stated)


def _capitals(tokens: Iterable[str]) -> int:
    """Returns the number of tokens with a capital letter, except those in brackets."""
    return sum(token != token.lower() and token[:1] + token[-1:] not in ("[]", "<>") for token in tokens)


def _is_cased(tokens: Collection[str]) -> bool:
    """Returns whether a vocabulary is cased. An uncased one may have a few added tokens with capital letters."""
    return _capitals(tokens) >= _CASED_SHARE * len(tokens)


def _has_marks(tokens: Iterable[str]) -> bool:
    """Returns whether stripping accents would change a token, which could then never occur: such as é, が, й, 한."""
    strip = normalizers.BertNormalizer(
        clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False)
    return any(strip.normalize_str(token) != token for token in tokens)


def _warn_case_is_kept(file: pathlib.Path, tokens: Collection[str]) -> None:
    logger.warning("tokenizer %s lower-cases, but %s of its %s tokens have capital letters: case is kept", file,
                   f"{_capitals(tokens):,}", f"{len(tokens):,}")
