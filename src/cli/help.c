/* SPDX-License-Identifier: MIT
** Help and completion scripts, by the table.
*/
#include "cli/cli.h"

#include <string.h>

static void print_option(FILE *to, const ec_option *o) {
  char text[64];
  bool maybe = o->kind == EC_MAYBE_DURATION;
  snprintf(text, sizeof text, "--%s%s%s%s%s", o->name, maybe ? "[" : "",
           o->value != NULL ? "=" : "", o->value != NULL ? o->value : "",
           maybe ? "]" : "");
  if (o->letter != '\0')
    fprintf(to, "  -%c, %-22s", o->letter, text);
  else
    fprintf(to, "  %-26s", text);
  fprintf(to, " %s\n", o->help);
}

void ec_print_help(FILE *to, const ec_command *command) {
  if (command == NULL) {
    fputs("eguard: run this once, not twice at the same time, and not for too "
          "long.\n\n",
          to);
    for (size_t i = 0; i < ec_command_count; i++) {
      char text[64];
      snprintf(text, sizeof text, "%s %s", ec_commands[i].name,
               ec_commands[i].operands);
      fprintf(to, "  eguard %-22s %s\n", text, ec_commands[i].summary);
    }
    fputs(
        "\neguard COMMAND --help tells more; durations are 30s, 5m, 1h30m.\n",
        to);
    return;
  }
  fprintf(to, "eguard %s [options]%s%s\n  %s\n\n", command->name,
          *command->operands != '\0' ? " " : "", command->operands,
          command->summary);
  for (size_t i = 0; i < ec_option_count; i++)
    if ((ec_option_table[i].of & command->bit) != 0)
      print_option(to, &ec_option_table[i]);
  if (command->more != NULL)
    fprintf(to, "\n%s", command->more);
}

int ec_help(ec_options *options) {
  if (options->operand_count == 0) {
    ec_print_help(stdout, NULL);
    return 0;
  }
  const ec_command *command = ec_find_command(options->operands[0]);
  if (command == NULL) {
    ec_error("there is no command \"%s\"; see eguard --help",
             options->operands[0]);
    return EC_USAGE;
  }
  ec_print_help(stdout, command);
  return 0;
}

/* --------------------------------------------------------- completion -- */

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
  fputs("  esac\n"
        "  if [[ $cur == -* ]]; then\n"
        "    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
        "    [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace\n"
        "  elif [ \"$keys\" = 1 ]; then\n"
        "    COMPREPLY=($(compgen -W \"$(eguard ls \"${store[@]}\" "
        "2>/dev/null |\n"
        "      cut -f 1)\" -- \"$cur\"))\n"
        "  elif [ \"${COMP_WORDS[1]}\" = completion ]; then\n"
        "    COMPREPLY=($(compgen -W 'bash zsh' -- \"$cur\"))\n"
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

int ec_completion(ec_options *options) {
  const char *shell = options->operands[0];
  if (strcmp(shell, "bash") == 0) {
    print_bash();
  } else if (strcmp(shell, "zsh") == 0) {
    print_zsh();
  } else {
    ec_error("there is no completion for \"%s\"; bash or zsh", shell);
    return EC_USAGE;
  }
  return 0;
}
