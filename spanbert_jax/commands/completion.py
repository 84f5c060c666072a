"""Print a script that completes commands, flags and their values in bash and zsh.

  spanbert-jax completion > ~/.local/share/bash-completion/completions/spanbert-jax
  spanbert-jax completion > ~/.spanbert-jax-completion   # for zsh, with `source ~/.spanbert-jax-completion` in ~/.zshrc

Print it again after an update.
"""
import argparse
import shlex
from collections.abc import Iterable

from spanbert_jax.cluster.exit_codes import DONE
from spanbert_jax.commands.main import COMMANDS, flags_of, import_command, make_parser

# The cases are matched with "COMMAND PREVIOUS_WORD WORD". Without a match, files complete.
_SCRIPT = """[ -n "${{ZSH_VERSION-}}" ] && autoload -U +X compinit bashcompinit && compinit && bashcompinit
_spanbert_jax() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" allowed=''
  if [ "$COMP_CWORD" = 1 ]; then
    allowed={commands}
  else
    case "${{COMP_WORDS[1]}} ${{COMP_WORDS[COMP_CWORD-1]}} $word" in
{cases}
    esac
  fi
  COMPREPLY=($(compgen -W "$allowed" -- "$word"))
}}
complete -o default -F _spanbert_jax spanbert-jax"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the name of a shell."""
    parser.add_argument("shell", nargs="?", choices=("bash", "zsh"), help="the shell; the script is the same for both")


def run(args: argparse.Namespace) -> int:
    """Prints the script."""
    cases: list[str] = []
    for name in COMMANDS:
        flags = flags_of(make_parser(name, import_command(name)))
        cases += [_case(f"'{name} {flag} '*", map(str, action.choices)) for flag, action in flags.items()
                  if action.choices]
        cases.append(_case(f"'{name} '*' -'*", flags))
    print(_SCRIPT.format(commands=shlex.quote(" ".join(COMMANDS)), cases="\n".join(cases)))
    return DONE


def _case(pattern: str, words: Iterable[str]) -> str:
    return f"      {pattern}) allowed={shlex.quote(' '.join(words))} ;;"
