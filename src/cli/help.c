/* SPDX-License-Identifier: MIT
** Help, by the table.
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
      fprintf(to, "  eguard %-27s %s\n", text, ec_commands[i].summary);
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
