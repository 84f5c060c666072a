"""Rebuilds a tokenizer.json from its vocabulary and the components that tokenizers of models have.

The library trusts such a file: it may hang, end the process, or take all memory, on reading it or on the first text.
"""
import json
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer

from spanbert_jax.common.errors import UserError, is_panic
from spanbert_jax.text.charsmap import checked_growth
from spanbert_jax.text.patterns import shortest_match

# Of entries, and of the highest id and one. The library reserves memory for all at once.
MAX_VOCAB_SIZE = 2_000_000
MAX_TOKEN_CHARACTERS = 1_000  # of an added token; the library takes the square of it
_MOST_COMPONENTS = 64
_MOST_CHARACTERS = 64  # of marks, replacements and names of tokens
_MOST_GROWTH = 64  # how much longer all replacements together may make a text
_MOST_PIECES = 16  # of a template
_MOST_IN_WORD = 10_000  # characters of a word that WordPiece splits, which takes the square of it
# By section of the file, the types of components and their fields; those in older files are in brackets.
_TYPES: Mapping[str, Mapping[str, Sequence[str]]] = {
    "normalizer": {
        "BertNormalizer": ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase"), "ByteLevel": (),
        "Lowercase": (), "NFC": (), "NFD": (), "NFKC": (), "NFKD": (), "Nmt": (), "StripAccents": (),
        "Precompiled": ("precompiled_charsmap",), "Prepend": ("prepend",), "Replace": ("pattern", "content"),
        "Sequence": ("normalizers",), "Strip": ("strip_left", "strip_right")},
    "pre_tokenizer": {
        "BertPreTokenizer": (), "ByteLevel": ("add_prefix_space", "trim_offsets", "use_regex"),
        "CharDelimiterSplit": ("delimiter",), "Digits": ("individual_digits",), "FixedLength": ("length",),
        "Metaspace": ("replacement", "prepend_scheme", "split", "add_prefix_space", "str_rep"),
        "Punctuation": ("behavior",), "Sequence": ("pretokenizers",), "Split": ("pattern", "behavior", "invert"),
        "UnicodeScripts": (), "Whitespace": (), "WhitespaceSplit": ()},
    "model": {
        "BPE": ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback",
                "ignore_merges", "vocab", "merges"),
        "Unigram": ("unk_id", "byte_fallback", "vocab"), "WordLevel": ("unk_token", "vocab"),
        "WordPiece": ("unk_token", "continuing_subword_prefix", "max_input_chars_per_word", "vocab")},
    "post_processor": {
        "BertProcessing": ("sep", "cls"), "ByteLevel": ("add_prefix_space", "trim_offsets", "use_regex"),
        "RobertaProcessing": ("sep", "cls", "trim_offsets", "add_prefix_space"), "Sequence": ("processors",),
        "TemplateProcessing": ("single", "pair", "special_tokens")},
    "decoder": {
        "BPEDecoder": ("suffix",), "ByteFallback": (), "ByteLevel": ("add_prefix_space", "trim_offsets", "use_regex"),
        "CTC": ("pad_token", "word_delimiter_token", "cleanup"), "Fuse": (), "Replace": ("pattern", "content"),
        "Metaspace": ("replacement", "prepend_scheme", "split", "add_prefix_space", "str_rep"),
        "Sequence": ("decoders",), "Strip": ("content", "start", "stop"), "WordPiece": ("prefix", "cleanup")},
}
_TOKEN_FIELDS = ("id", "content", "single_word", "lstrip", "rstrip", "normalized", "special")
_LISTS = ("normalizers", "pretokenizers", "processors", "decoders")


def build(values: Mapping[str, Any]) -> Tokenizer:
    """Returns a tokenizer of the content of a tokenizer.json, without padding and truncation.

    Raises UserError, which names the section, if a component is of an unknown type or has values that no tokenizer of
    a model has.
    """
    parts: dict[str, Any] = {"version": "1.0", "truncation": None, "padding": None}
    parts["added_tokens"] = [_fields(token, _TOKEN_FIELDS, "added_tokens") for token in _list(
        values.get("added_tokens") or [], MAX_VOCAB_SIZE, "added_tokens")]
    for token in parts["added_tokens"]:
        content = token.get("content")
        _require(isinstance(content, str) and len(content) <= MAX_TOKEN_CHARACTERS, "added_tokens: content", content,
                 f"a text of at most {MAX_TOKEN_CHARACTERS:,} characters")
    for section in _TYPES:
        component = values.get(section)
        parts[section] = None if component is None and section != "model" else _Rebuilder(section)(component)
    _check_model(parts["model"], parts["added_tokens"])
    try:
        tokenizer = Tokenizer.from_str(json.dumps(parts))
    except BaseException as error:
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        raise UserError(" ".join(str(error).split())) from None
    if not tokenizer.get_vocab_size():
        raise UserError("its vocabulary is empty")
    return tokenizer


class _Rebuilder:
    """Copies the component of a section, with the components inside it."""

    def __init__(self, section: str):
        self._section, self._left, self._growth = section, _MOST_COMPONENTS, 1.0

    def __call__(self, component: Any) -> dict[str, Any]:
        """A copy of the fields that the type has."""
        types, section = _TYPES[self._section], self._section
        self._left -= 1
        _require(self._left >= 0, section, "", f"at most {_MOST_COMPONENTS} components")
        _require(isinstance(component, dict), section, component, "an object with a type")
        kind = component.get("type", _model_type(component) if section == "model" else None)
        _require(isinstance(kind, str) and kind in types, f"type of {section}", kind, f"one of {', '.join(types)}")
        copied = _fields(component, types[kind], section) | {"type": kind}
        for name, value in copied.items():
            if name in _LISTS:
                copied[name] = [self(one) for one in _list(value, _MOST_COMPONENTS, f"{section}: {name}")]
            elif isinstance(value, str) and name != "precompiled_charsmap":
                _require(len(value) <= _MOST_CHARACTERS, f"{section}: {name}", value,
                         f"a text of at most {_MOST_CHARACTERS} characters")
        if check := _CHECKS.get(kind):
            self._growth *= check(copied, section)
            _require(self._growth <= _MOST_GROWTH, section, "", f"replacements that make a text at most {_MOST_GROWTH} "
                                                                "times longer")
        return copied


def _check_pattern(component: Mapping[str, Any], place: str) -> float:
    """Checks "pattern" and "content" of Split or Replace, and returns how much longer a text becomes."""
    pattern: Any = component.get("pattern")
    content = component.get("content", "")
    _require(isinstance(pattern, dict) and len(pattern) == 1 and isinstance(content, str)
             and all(isinstance(text, str) for text in pattern.values()), f"{place}: pattern", pattern,
             "an object with one text, String or Regex,")
    ((kind, text),) = pattern.items()
    shortest = shortest_match(text) if kind == "Regex" else len(text)
    if "content" not in component:
        return 1.0
    _require(shortest > 0, f"{place}: pattern", text, "a pattern that does not match the empty text")
    return max(1.0, len(content.encode()) / shortest)


def _check_charsmap(component: Mapping[str, Any], place: str) -> float:
    charsmap: Any = component.get("precompiled_charsmap")
    _require(isinstance(charsmap, str), f"{place}: precompiled_charsmap", charsmap, "a text in base64")
    return checked_growth(charsmap)


def _check_length(component: Mapping[str, Any], place: str) -> float:
    length = component.get("length")
    _require(type(length) is int and 0 < length <= MAX_VOCAB_SIZE, f"{place}: length", length, "a positive number")
    return 1.0


def _check_template(component: Mapping[str, Any], place: str) -> float:
    special: Any = component.get("special_tokens")
    _require(isinstance(special, dict), f"{place}: special_tokens", special, "an object")
    for name, token in special.items():
        ids = token.get("ids") if isinstance(token, dict) else None
        _require(isinstance(ids, list) and 0 < len(ids) <= _MOST_PIECES and all(map(_is_id, ids)),
                 f"{place}: special_tokens: {name}", token, f"an object with ids below {MAX_VOCAB_SIZE:,}")
    for field, texts in (("single", ("A",)), ("pair", ("A", "B"))):
        for piece in _list(component.get(field), _MOST_PIECES, f"{place}: {field}"):
            pieces = list(piece.items()) if isinstance(piece, dict) else []
            _require(len(pieces) == 1 and isinstance(pieces[0][1], dict), f"{place}: {field}", piece, "a piece")
            ((kind, value),) = pieces
            allowed = texts if kind == "Sequence" else tuple(special)
            _require(value.get("id") in allowed and value.get("type_id") in range(256), f"{place}: {field}", piece,
                     f"a text {' or '.join(texts)} or one of special_tokens, with a type_id below 256,")
    return 1.0


def _check_around(component: Mapping[str, Any], place: str) -> float:
    for name in ("cls", "sep"):
        token = component.get(name)
        _require(isinstance(token, list) and len(token) == 2 and _is_id(token[1]), f"{place}: {name}", token,
                 f"a token with its id, below {MAX_VOCAB_SIZE:,},")
    return 1.0


# By type of a component, what checks its fields. They return how many times longer a text becomes.
_CHECKS: Mapping[str, Callable[[Mapping[str, Any], str], float]] = {
    "Replace": _check_pattern, "Split": _check_pattern, "Precompiled": _check_charsmap, "FixedLength": _check_length,
    "TemplateProcessing": _check_template, "BertProcessing": _check_around, "RobertaProcessing": _check_around}


def _model_type(model: Mapping[str, Any]) -> str:
    """The type of a model in an older file, which does not name it."""
    if isinstance(model.get("vocab"), list):
        return "Unigram"
    return "BPE" if "merges" in model else "WordPiece" if "max_input_chars_per_word" in model else "WordLevel"


def _check_model(model: Mapping[str, Any], added: Sequence[Mapping[str, Any]]) -> None:
    vocab: Any = model.get("vocab")
    kind = model["type"]
    if kind == "Unigram":
        entries = _list(vocab, MAX_VOCAB_SIZE, "model: vocab")
        _require(type(model.get("unk_id")) is int, "model: unk_id", model.get("unk_id"), "the number of an entry")
        _require(all(isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str) for entry in entries),
                 "model: vocab", "", "pairs of a text and a number")
        return
    _require(isinstance(vocab, dict), "model: vocab", vocab, "an object of tokens and their ids")
    if wrong := next((token for token, number in vocab.items() if not _is_id(number)), None):
        _require(False, f"model: vocab: {wrong!r:.40}", vocab[wrong], f"an id below {MAX_VOCAB_SIZE:,}")
    unknown = model.get("unk_token")
    _require(unknown is None or (isinstance(unknown, str) and unknown in vocab)
             or any(token.get("content") == unknown for token in added),
             "model: unk_token", unknown, "an entry of the vocabulary")
    if kind == "WordPiece":
        most = model.get("max_input_chars_per_word", 0)
        _require(type(most) is int and 0 <= most <= _MOST_IN_WORD, "model: max_input_chars_per_word", most,
                 f"a number up to {_MOST_IN_WORD:,}")
    prefix = model.get("continuing_subword_prefix")
    if kind == "BPE" and isinstance(prefix, str) and prefix:
        pairs = (merge.split(" ") if isinstance(merge, str) else merge
                 for merge in _list(model.get("merges"), 2 * MAX_VOCAB_SIZE, "model: merges"))
        wrong = next((pair for pair in pairs if not (
            isinstance(pair, list) and len(pair) == 2 and str(pair[1]).startswith(prefix))), None)
        _require(wrong is None, "model: merges", wrong, f"a pair whose second token begins with {prefix!r}")


def _fields(values: Any, names: Sequence[str], place: str) -> dict[str, Any]:
    """The fields of an object that have a meaning; the library ignores others too."""
    _require(isinstance(values, dict), place, values, "an object")
    return {name: values[name] for name in names if name in values}


def _list(value: Any, most: int, place: str) -> list[Any]:
    _require(isinstance(value, list) and len(value) <= most, place, value, f"a list of at most {most:,}")
    return value


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value < MAX_VOCAB_SIZE


def _require(holds: bool, place: str, value: Any, needed: str) -> None:
    if not holds:
        raise UserError(f"{place}{f' is {reprlib.repr(value)}' if value != '' else ''}: {needed} is needed")
