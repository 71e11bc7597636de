/* SPDX-License-Identifier: MIT
** Completion scripts for bash, zsh and fish, by the table.
*/
#include "cli/cli.h"

#include <string.h>

/* --------------------------------------------------------------- bash -- */

/* The words that a command's options begin with; "=" where a value follows. */
static void print_words(const ec_command *command) {
  for (size_t i = 0; i < ec_option_count; i++) {
    const ec_option *o = &ec_option_table[i];
    if ((o->of & command->bit) == 0)
      continue;
    if (o->kind == EC_MAYBE_DURATION)
      printf(" --%s", o->name);
    printf(" --%s%s", o->name, o->kind == EC_FLAG ? "" : "=");
  }
}

static void print_cases(void) {
  for (size_t i = 0; i < ec_command_count; i++) {
    printf("    %s) words='", ec_commands[i].name);
    print_words(&ec_commands[i]);
    printf("'; keys=%d ;;\n", ec_commands[i].takes_key);
  }
}

static void print_names(void) {
  for (size_t i = 0; i < ec_command_count; i++)
    printf("%s%s", i > 0 ? " " : "", ec_commands[i].name);
}

static void print_bash(void) {
  fputs("# bash completion of eguard; printed by: eguard completion bash\n"
        "_eguard() {\n"
        "  local cur=${COMP_WORDS[COMP_CWORD]} words='' keys=0 i store=()\n"
        "  local key quoted head='' word=${COMP_LINE:0:COMP_POINT}\n"
        "  COMPREPLY=()\n"
        "  # --store=URL is three words to bash; take the line as eguard would"
        "\n"
        "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
        "    if [ \"${COMP_WORDS[i]}\" = -- ]; then\n"
        "      _command_offset $((i + 1)) 2>/dev/null ||\n"
        "        COMPREPLY=($(compgen -c -- \"$cur\"))\n"
        "      return\n"
        "    fi\n"
        "    if [ \"${COMP_WORDS[i]}\" = --store ]; then\n"
        "      store=(--store=\"${COMP_WORDS[i + 2]}\")\n"
        "    fi\n"
        "  done\n"
        "  if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
        "    COMPREPLY=($(compgen -W '",
        stdout);
  print_names();
  fputs("' -- \"$cur\"))\n"
        "    return\n"
        "  fi\n"
        "  case ${COMP_WORDS[1]} in\n",
        stdout);
  print_cases();
  fputs(
      "  esac\n"
      "  if [[ $cur == -* ]]; then\n"
      "    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
      "    [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace\n"
      "  elif [ \"$keys\" = 1 ]; then\n"
      "    # a key with a colon is several words to bash, which completes the "
      "last\n"
      "    word=${word##*[[:blank:]]}\n"
      "    if [[ $word == *:* && $COMP_WORDBREAKS == *:* ]]; then\n"
      "      cur=$word head=${word%\"${word##*:}\"}\n"
      "    fi\n"
      /* compgen -W would expand the keys: $(...) of one would be run */
      "    while IFS= read -r key; do\n"
      "      printf -v quoted %q \"$key\"\n"
      "      [[ -n $key && ($key == \"$cur\"* || $quoted == \"$cur\"*) ]] "
      "&&\n"
      "        COMPREPLY+=(\"${quoted#\"$head\"}\")\n"
      "    done <<<\"$(eguard ls \"${store[@]}\" 2>/dev/null | cut -f 1)\""
      "\n"
      "  elif [ \"${COMP_WORDS[1]}\" = completion ]; then\n"
      "    COMPREPLY=($(compgen -W 'bash zsh fish' -- \"$cur\"))\n"
      "  elif [ \"${COMP_WORDS[1]}\" = help ]; then\n"
      "    COMPREPLY=($(compgen -W '",
      stdout);
  print_names();
  fputs("' -- \"$cur\"))\n"
        "  fi\n"
        "}\n"
        "complete -F _eguard eguard\n",
        stdout);
}

/* ---------------------------------------------------------------- zsh -- */

/* A text between the quotes and brackets of zsh's _arguments. */
static void print_quoted(const char *text) {
  for (; *text != '\0'; text++) {
    if (*text == '\'')
      fputs("'\\'", stdout);
    if (*text == '[' || *text == ']' || *text == ':')
      putchar('\\');
    putchar(*text);
  }
}

static void print_zsh_command(const ec_command *command) {
  printf("  %s)\n    _arguments -S", command->name);
  for (size_t i = 0; i < ec_option_count; i++) {
    const ec_option *o = &ec_option_table[i];
    if ((o->of & command->bit) == 0)
      continue;
    printf(" \\\n      '--%s%s[", o->name,
           o->kind == EC_FLAG             ? ""
           : o->kind == EC_MAYBE_DURATION ? "=-"
                                          : "=");
    print_quoted(o->help);
    printf("]%s%s%s'", o->kind == EC_FLAG ? "" : ":",
           o->kind == EC_MAYBE_DURATION ? ":" : "",
           o->kind == EC_FLAG ? "" : o->value);
    if (o->kind != EC_FLAG)
      fputs("': '", stdout);
  }
  if (command->takes_key)
    fputs(" \\\n      '1:key:_eguard_keys'", stdout);
  if (command->run == ec_run)
    fputs(" \\\n      '*:::command:_normal'", stdout);
  fputs("\n    ;;\n", stdout);
}

static void print_zsh(void) {
  fputs("#compdef eguard\n"
        "# zsh completion of eguard; printed by: eguard completion zsh\n"
        "_eguard_keys() {\n"
        "  local -a keys\n"
        "  keys=(${(f)\"$(eguard ls 2>/dev/null | cut -f 1)\"})\n"
        "  compadd -a keys\n"
        "}\n"
        "_eguard() {\n"
        "  local -a commands\n"
        "  commands=(\n",
        stdout);
  for (size_t i = 0; i < ec_command_count; i++) {
    printf("    '%s:", ec_commands[i].name);
    print_quoted(ec_commands[i].summary);
    fputs("'\n", stdout);
  }
  fputs("  )\n"
        "  if (( CURRENT == 2 )); then\n"
        "    _describe command commands\n"
        "    return\n"
        "  fi\n"
        "  local command=$words[2]\n"
        "  shift words\n"
        "  (( CURRENT-- ))\n"
        "  case $command in\n",
        stdout);
  for (size_t i = 0; i < ec_command_count; i++)
    print_zsh_command(&ec_commands[i]);
  fputs("  esac\n"
        "}\n"
        "if [ \"$funcstack[1]\" = _eguard ]; then\n"
        "  _eguard \"$@\"\n"
        "else\n"
        "  compdef _eguard eguard\n"
        "fi\n",
        stdout);
}

/* --------------------------------------------------------------- fish -- */

static void print_fish_text(const char *text) {
  putchar('\'');
  for (; *text != '\0'; text++) {
    if (*text == '\'' || *text == '\\')
      putchar('\\');
    putchar(*text);
  }
  putchar('\'');
}

static void print_fish_command(const ec_command *command) {
  printf("complete -c eguard -n __eguard_first -a %s -d ", command->name);
  print_fish_text(command->summary);
  putchar('\n');
  for (size_t i = 0; i < ec_option_count; i++) {
    const ec_option *o = &ec_option_table[i];
    if ((o->of & command->bit) == 0)
      continue;
    printf("complete -c eguard -n '__eguard_is %s' -l %s", command->name,
           o->name);
    if (o->letter != '\0')
      printf(" -s %c", o->letter);
    printf("%s -d ",
           o->kind == EC_FLAG || o->kind == EC_MAYBE_DURATION ? "" : " -x");
    print_fish_text(o->help);
    putchar('\n');
  }
  if (command->takes_key)
    printf("complete -c eguard -n '__eguard_is %s' -a '(__eguard_keys)'\n",
           command->name);
}

static void print_fish(void) {
  fputs("# fish completion of eguard; printed by: eguard completion fish\n"
        "function __eguard_first\n"
        "  test (count (commandline -opc)) -eq 1\n"
        "end\n"
        "function __eguard_is\n"
        "  set -l words (commandline -opc)\n"
        "  test (count $words) -ge 2; and test \"$words[2]\" = $argv[1]\n"
        "  and not contains -- -- $words\n"
        "end\n"
        "function __eguard_keys\n"
        "  eguard ls (commandline -opc | string match -- '--store=*') "
        "2>/dev/null | cut -f 1\n"
        "end\n"
        "function __eguard_command\n"
        "  set -l words (commandline -opc)\n"
        "  set -l at (contains -i -- -- $words); or return\n"
        "  set -e words[1..$at]\n"
        "  complete -C (string join ' ' -- (string escape -- $words) "
        "(commandline -ct))\n"
        "end\n"
        "complete -c eguard -f\n"
        "complete -c eguard -n 'contains -- -- (commandline -opc)' "
        "-a '(__eguard_command)'\n",
        stdout);
  for (size_t i = 0; i < ec_command_count; i++)
    print_fish_command(&ec_commands[i]);
  fputs("complete -c eguard -n '__eguard_is completion' -a 'bash zsh fish'\n"
        "complete -c eguard -n '__eguard_is help' -a '",
        stdout);
  print_names();
  fputs("'\n", stdout);
}

/* ---------------------------------------------------------------------- */

int ec_completion(ec_options *options) {
  const char *shell = options->operands[0];
  if (strcmp(shell, "bash") == 0) {
    print_bash();
  } else if (strcmp(shell, "zsh") == 0) {
    print_zsh();
  } else if (strcmp(shell, "fish") == 0) {
    print_fish();
  } else {
    ec_error("there is no completion for \"%s\"; bash, zsh or fish", shell);
    return EC_USAGE;
  }
  return 0;
}
