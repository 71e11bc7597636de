/* SPDX-License-Identifier: MIT
** The whole terminal, for a picture that is drawn again in place; given back
** as it was, whatever ends or stops this process.
**
**            open                      TSTP, STOP
**   shell's ------> ours, raw keys ----------------> shell's, stopped
**      ^              |   ^                             |
**      |  close, exit,|   +-------------- CONT ---------+
**      +--------------+
**         INT, TERM, HUP, QUIT (and then the signal ends the process)
**
** The handlers give the terminal back themselves, with calls that are allowed
** there: a store that does not answer keeps nobody from ending the program.
*/
#include "cli/top.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

static const char enter[] = "\033[?1049h\033[?25l\033[?7l\033[2J";
static const char leave[] = "\033[0m\033[?7h\033[?25h\033[?1049l";

static struct termios theirs, ours;
static volatile sig_atomic_t inside, changed;

/* What cannot be written is not to be seen either. */
static void say(const char *order, size_t n) {
  ssize_t written = write(STDOUT_FILENO, order, n);
  (void)written;
}

static void give_back(void) {
  if (!inside)
    return;
  inside = 0;
  say(leave, sizeof leave - 1);
  tcsetattr(STDIN_FILENO, TCSANOW, &theirs);
}

static void take(void) {
  tcsetattr(STDIN_FILENO, TCSANOW, &ours);
  say(enter, sizeof enter - 1);
  inside = changed = 1;
}

/* The default is back (SA_RESETHAND): the signal ends the process when this
** returns. */
static void on_end(int signal) {
  int kept = errno;
  give_back();
  raise(signal);
  errno = kept;
}

static void on_stop(int signal) {
  int kept = errno;
  (void)signal;
  give_back();
  ec_stop_as(SIGSTOP); /* goes on in on_continue */
  errno = kept;
}

static void on_continue(int signal) {
  int kept = errno;
  (void)signal;
  take();
  errno = kept;
}

static void on_size(int signal) {
  (void)signal;
  changed = 1;
}

static void handle(int signal, void (*handler)(int), int flags) {
  struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
  sigfillset(&action.sa_mask);
  sigdelset(&action.sa_mask, SIGCONT); /* comes while on_stop waits */
  sigaction(signal, &action, NULL);
}

bool ec_screen_open(void) {
  static const int ends[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
  const char *term = getenv("TERM");
  if (term == NULL || *term == '\0' || strcmp(term, "dumb") == 0 ||
      !ec_terminal() || tcgetattr(STDIN_FILENO, &theirs) != 0)
    return false;
  ours = theirs;
  ours.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
  ours.c_cc[VMIN] = 1;
  ours.c_cc[VTIME] = 0;
  atexit(ec_screen_close);
  for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
    handle(ends[i], on_end, (int)SA_RESETHAND);
  handle(SIGTSTP, on_stop, 0);
  handle(SIGCONT, on_continue, 0);
  handle(SIGWINCH, on_size, 0);
  take();
  return true;
}

void ec_screen_close(void) {
  if (inside)
    signal(SIGCONT, SIG_DFL);
  give_back();
}

bool ec_screen_changed(void) {
  bool was = changed != 0;
  changed = 0;
  return was;
}

void ec_screen_size(int *columns, int *rows) {
  struct winsize size = {0};
  ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
  *columns = size.ws_col > 0 ? size.ws_col : EG_VIEW_COLUMNS;
  *rows = size.ws_row > 0 ? size.ws_row : 24;
}

/* ---------------------------------------------------------------- keys -- */

/* A byte; 0: none came; -1: nobody types any more. */
static int read_byte(int wait_ms) {
  unsigned char byte;
  struct pollfd in = {STDIN_FILENO, POLLIN, 0};
  int ready = poll(&in, 1, wait_ms);
  if (ready <= 0)
    return 0;
  ssize_t n = read(STDIN_FILENO, &byte, 1);
  if (n < 0 && (errno == EINTR || errno == EAGAIN))
    return 0;
  return n == 1 ? byte : -1;
}

/* Keys that are words: ESC [ A, ESC O A, ESC [ 5 ~. */
static int read_word(void) {
  static const struct {
    char first, last;
    int key;
  } words[] = {{'A', 0, EC_KEY_UP},        {'B', 0, EC_KEY_DOWN},
               {'H', 0, EC_KEY_HOME},      {'F', 0, EC_KEY_END},
               {'5', '~', EC_KEY_PAGE_UP}, {'6', '~', EC_KEY_PAGE_DOWN}};
  enum { SOON_MS = 25 };
  int byte = read_byte(SOON_MS);
  if (byte != '[' && byte != 'O')
    return EC_KEY_ESCAPE;
  char first = 0, last = 0;
  for (byte = read_byte(SOON_MS); byte > 0; byte = read_byte(SOON_MS)) {
    if (first == 0)
      first = (char)byte;
    last = (char)byte;
    if (byte >= '@' && byte <= '~')
      break;
  }
  for (size_t i = 0; i < sizeof words / sizeof *words; i++)
    if (first == words[i].first &&
        last == (words[i].last != 0 ? words[i].last : words[i].first))
      return words[i].key;
  return EC_KEY_OTHER;
}

int ec_screen_key(int64_t wait_us) {
  int64_t wait_ms = wait_us <= 0 ? 0 : (wait_us + 999) / 1000;
  int byte = changed ? 0 : read_byte((int)wait_ms);
  return byte == '\033' ? read_word() : byte;
}
