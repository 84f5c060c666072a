# shellcheck shell=bash
# Functions of the scripts in this folder; to be sourced.

# Whether the same command may be run again after exit status $1. The statuses are those of
# spanbert_jax/cluster/exit_codes.py, which explains them; a test compares both.
retryable() { [[ $1 =~ ^(70|75|129|134|137|143)$ ]]; }

# The exit status of a run of several processes. The file $1 has those of its processes in the order of their ends, one
# per line; 70 and 134 are consequences of another process's end. If there are no others, it is $2.
run_status() {
  local why
  why=$(grep --no-messages --invert-match --line-regexp --extended-regexp '0|70|134' "$1" | head -n 1)
  echo "${why:-$2}"
}

# The arguments as a line of shell, quoted only where necessary.
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
