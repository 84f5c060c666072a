"""Special tokens by their role: which tokens pad, separate and mask, and where they stand around texts."""
import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer, processors

from spanbert_jax.common.errors import UserError

# Usual names of the tokens of each role, the most usual first: those of BERT, of RoBERTa and SentencePiece, and others.
ROLES: dict[str, tuple[str, ...]] = {
    "pad": ("[PAD]", "<pad>", "<|pad|>", "<|padding|>"), "unk": ("[UNK]", "<unk>"), "cls": ("[CLS]", "<s>", "<bos>"),
    "sep": ("[SEP]", "</s>", "<eos>"), "mask": ("[MASK]", "<mask>", "<|mask|>")}
SPECIAL_TOKENS = tuple(names[0] for names in ROLES.values())
# Without the others, unknown words or padding cannot occur, or another token serves.
REQUIRED_ROLES = ("cls", "sep", "mask")
_AS_TEXT = "\0"  # before the names of special tokens that a tokenizer must not find in a text


@dataclasses.dataclass(frozen=True)
class SpecialIds:
    """Ids of the special tokens by role. A tokenizer without a token that pads or is unknown has that of `sep`."""
    pad: int
    unk: int
    cls: int
    sep: int
    mask: int


@dataclasses.dataclass(frozen=True)
class PairLayout:
    """Special tokens around two texts: cls, first text, `between`, second text, sep."""
    cls: int
    sep: int
    between: tuple[int, ...]  # [SEP]; two of them in RoBERTa
    between_types: tuple[int, ...]  # their token types
    second_type: int  # token type of the second text; that of the first is 0

    @property
    def size(self) -> int:
        """Number of special tokens."""
        return 2 + len(self.between)

    def tokens(self, first: Sequence[int], second: Sequence[int]) -> list[int]:
        """Two texts with the special tokens."""
        return [self.cls, *first, *self.between, *second, self.sep]

    def types(self, first: int, second: int) -> list[int]:
        """Token types of two texts of given lengths with the special tokens."""
        return [0] * (1 + first) + list(self.between_types) + [self.second_type] * (second + 1)


def special_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """Returns the special tokens by role. Roles without a token are left out.

    Which token has a role is what the post-processor says (a name of BERT in a template; else the tokens before and
    after a text are cls and sep), then the model's unknown token, then the first of `ROLES` in the vocabulary.
    """
    found = {role: tokenizer.id_to_token(number) for role, number in _processor_roles(tokenizer).items()}
    if unknown := getattr(tokenizer.model, "unk_token", None):
        found.setdefault("unk", unknown)
    for role, names in ROLES.items():
        for name in names:
            if role not in found and tokenizer.token_to_id(name) is not None:
                found[role] = name
    return {role: found[role] for role in ROLES
            if found.get(role) is not None and tokenizer.token_to_id(found[role]) is not None}


def special_ids(tokenizer: Tokenizer) -> SpecialIds:
    """Returns the ids of the special tokens. Raises UserError if one that is needed is missing."""
    tokens = special_tokens(tokenizer)
    if missing := [role for role in REQUIRED_ROLES if role not in tokens]:
        raise UserError(f"the tokenizer has no {missing[0]} token; name one as \"{missing[0]}_token\" in a "
                        f"tokenizer_config.json beside it, such as \"{missing[0]}_token\": \"{ROLES[missing[0]][0]}\"")
    ids = {role: tokenizer.token_to_id(token) for role, token in tokens.items()}
    return SpecialIds(**{"pad": ids["sep"], "unk": ids["sep"], **ids})


def pair_layout(tokenizer: Tokenizer) -> PairLayout:
    """Returns how the post-processor of a tokenizer from `load_tokenizer` joins two texts."""
    text = special_tokens(tokenizer)["mask"]  # a text of one token
    pair = tokenizer.encode(text, text)
    return PairLayout(pair.ids[0], pair.ids[-1], tuple(pair.ids[2:-2]), tuple(pair.type_ids[2:-2]), pair.type_ids[-1])


def set_special_tokens(tokenizer: Tokenizer, tokens: Mapping[str, str]) -> bool:
    """Sets the special tokens by role, and the post-processor if it says something else.

    Around a text stand cls and sep, also where the post-processor adds other tokens or none; returns whether it does.
    `tokens` has the required roles, and its tokens are special tokens of the tokenizer.
    """
    text, ids = tokens["mask"], {role: tokenizer.token_to_id(token) for role, token in tokens.items()}
    cls, mask, sep = ids["cls"], ids["mask"], ids["sep"]
    pair = tokenizer.encode(text, text)
    fits = (tokenizer.encode(text).ids == [cls, mask, sep] and len(pair) > 4 and pair.ids[:2] == [cls, mask]
            and pair.ids[-2:] == [mask, sep] and set(pair.ids[2:-2]) == {sep} and pair.type_ids[:2] == [0, 0])
    if not fits or special_tokens(tokenizer) != dict(tokens):
        between = [0] if not fits else pair.type_ids[2:-2]
        tokenizer.post_processor = template(tokenizer, tokens, between, pair.type_ids[-1] if fits else 1)
    return not fits


def template(tokenizer: Tokenizer, tokens: Mapping[str, str], between_types: Sequence[int],
             second_type: int) -> processors.TemplateProcessing:
    """Returns the post-processor that puts cls and sep around texts.

    It also keeps the tokens of other roles, which it does not use, so that tokenizer.json says which they are.

    Args:
      tokens: special tokens by role.
      between_types: token types of the sep tokens between two texts.
      second_type: token type of the second text.
    """
    kept: list[Any] = [{"id": ROLES[role][0], "ids": [tokenizer.token_to_id(token)], "tokens": [token]}
                       for role, token in tokens.items()]
    between = " ".join(f"[SEP]:{kind}" for kind in between_types)
    return processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair=f"[CLS]:0 $A:0 {between} $B:{second_type} [SEP]:{second_type}",
        special_tokens=kept)


def with_one_token_type(tokenizer: Tokenizer) -> Tokenizer:
    """Returns a copy that gives both texts of a pair the token type 0."""
    copy, layout = Tokenizer.from_str(tokenizer.to_str()), pair_layout(tokenizer)
    if layout.second_type or any(layout.between_types):
        copy.post_processor = template(copy, special_tokens(copy), [0] * len(layout.between), second_type=0)
    return copy


def special_tokens_as_text(tokenizer: Tokenizer) -> Tokenizer:
    """Returns a copy that tokenizes special tokens in a text, such as "[SEP]", as ordinary text.

    Other special tokens, such as "[E1]" of a tokenizer with markers of its own, remain tokens. In the copy, special
    tokens have other names, which no text spells: a model such as Unigram also finds them as entries of its vocabulary.
    """
    values = json.loads(tokenizer.to_str())
    names = {token: _AS_TEXT + token for token in special_tokens(tokenizer).values()}
    model, vocab = values["model"], values["model"]["vocab"]
    if isinstance(vocab, dict):
        model["vocab"] = {names.get(token, token): number for token, number in vocab.items()}
    else:  # of Unigram: pairs of a token and its score
        model["vocab"] = [[names.get(token, token), score] for token, score in vocab]
    if isinstance(unknown := model.get("unk_token"), str):
        model["unk_token"] = names.get(unknown, unknown)
    for token in values["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    return Tokenizer.from_str(json.dumps(values))


def _processor_roles(tokenizer: Tokenizer) -> dict[str, int]:
    """Ids by role of the tokens that the post-processor names."""
    if tokenizer.post_processor is None:
        return {}
    state: dict[str, Any] = json.loads(tokenizer.post_processor.__getstate__())
    roles: dict[str, int] = {}
    for one in state.get("processors", [state]):
        roles |= {role: one[role][1] for role in ("cls", "sep") if role in one}  # of BERT and RoBERTa
        named = {name: value["ids"][0] for name, value in one.get("special_tokens", {}).items()}
        pieces = [piece["SpecialToken"]["id"] if "SpecialToken" in piece else None for piece in one.get("single", [])]
        if None in pieces:  # the place of the text
            roles |= {role: named[name] for role, name in (("cls", pieces[0]), ("sep", pieces[-1])) if name}
        roles |= {role: named[names[0]] for role, names in ROLES.items() if names[0] in named}
    return roles
