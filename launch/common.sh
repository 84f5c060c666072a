# shellcheck shell=bash
# What the scripts here share, to be sourced.

# What exit statuses ask for is the same as in spanbert_jax/cluster/exit_codes.py, which says why; a test compares them.
# Whether the same command, run again with nothing mended, goes on:
retryable() {
  case $1 in
    70 | 75 | 129 | 134 | 137 | 143) return 0 ;;
    *) return 1 ;;
  esac
}

# The status that says why a run of many processes ended. The file $1 holds those of its processes in the order in which
# they ended, one a line; 70 and 134 are mere consequences of another one's end, and then $2, of the whole, is as good.
telling_status() {
  local why
  why=$(grep --no-messages --invert-match --line-regexp --extended-regexp '0|70|134' "$1" | head -n 1)
  echo "${why:-$2}"
}

# The arguments as a line that a shell reads as the same arguments, quoted only where they must be.
quoted() {
  local word flag line=
  for word in "$@"; do
    flag=''
    if [[ $word =~ ^(--[a-z.-]+|[A-Z_]+)= ]]; then
      flag=${BASH_REMATCH[0]}
      word=${word#"$flag"}
    fi
    [[ $word =~ ^[A-Za-z0-9_./:=@%+,-]+$ ]] || word=${word@Q}
    line+="${line:+ }$flag$word"
  done
  printf '%s\n' "$line"
}
