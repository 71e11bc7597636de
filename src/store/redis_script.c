/* SPDX-License-Identifier: MIT
** What a record is on a Redis server, and the scripts that change it.
**
** A value is, in little-endian order (struct.pack "<" in the scripts):
**
**    0  1  format: 1                 32  8  last: the clock's highest so far
**    1  1  1: held                   40  8  end of the lease       (0: none)
**    2  2  bytes of the holder line  48  8  end of notBefore       (0: none)
**    4  4  0                         56  8  end of fresh           (0: none)
**    8  8  version                   64  8  end of life            (0: none)
**   16  8  token                     72     holder line, then the record
**   24  8  stamp: the last put              (MessagePack, see core/codec.h)
**
** All times are microseconds since the epoch by the server's clock, versions
** at least that: a number that rises over expiry, eviction and lost data.  A
** token is the version that its grant made.  Numbers in the scripts are
** doubles, exact up to 2^53.
**
** TIME.  `last` keeps a clock that is set back from prolonging anything: time
** stands still for that record until the clock has caught up.
**
** ABSENCE.  What is over is absent by the reading of whoever looks, and the
** server expires it a little later: EXPIRY_GRACE.  A key that becomes absent
** leaves its head for as long, so that version and token rise also if the
** clock is set back within that time, and so that no version is used twice.
*/
#include "store/redis.h"

#include <string.h>

#define STRING_(x) #x
#define STRING(x) STRING_(x)
#define EXPIRY_GRACE_US 10000000

/* Straight on, without functions and tables of their own, which a script would
** make anew in each call: that was half of what a call took.  All that READ
** knows of the record in `v` is in variables; `ver` is what others see, `rver`
** what must not be used again; `good` is false where it is none of ours. */
#define PRELUDE                                                               \
  "local P,U,C=struct.pack,struct.unpack,redis.call\n"                        \
  "local t=C('TIME')\n"                                                       \
  "local clock=t[1]*1000000+t[2]\n"                                           \
  "local v,ver,rver,tok,stamp,last,lu,nu,fu,iu,held,holder,bytes,good,gone\n" \
  "local f,flags,hl,till,now,said,mortal,forgot,kept\n"

/* What is over is absent. */
#define OVER(now) "(bytes=='' and nu<=" now " or iu>0 and iu<=" now ")"

/* clang-format off */
#define READ                                                                  \
  "ver,rver,tok,stamp,last,lu,nu,fu,iu,held,holder,bytes,good="               \
  "0,0,0,0,clock,0,0,0,0,false,'','',true\n"                                  \
  "if v then\n"                                                               \
  " f,hl=0,0\n"                                                               \
  " if #v>=72 then f,flags,hl,ver,tok,stamp,last,lu,nu,fu,iu="                \
  "U('<BBI2xxxxI8I8I8I8I8I8I8I8',v) end\n"                                    \
  " good=f==1 and #v>=72+hl\n"                                                \
  " rver=ver\n"                                                               \
  " if last<clock then last=clock end\n"                                      \
  " if #v>72+hl then bytes=v:sub(73+hl) end\n"                                \
  " held=flags==1 and (lu==0 or lu>last)\n"                                   \
  " if held then holder=v:sub(73,72+hl)\n"                                    \
  " else\n"                                                                   \
  "  lu=0\n"                                                                  \
  "  if " OVER("last") " then ver,tok,nu,fu,iu,bytes=0,0,0,0,0,'' end\n"      \
  " end\n"                                                                    \
  "end\n"

/* Writes it to the key k, tells of it where `wake`, and leaves in `said` what
** a swap answers.  An error ends the script.  What is counted expires with a
** record that expires. */
#define WRITE(k, wake)                                                        \
  "gone,till,now,mortal=false,false,last,iu>0 or forgot\n"                    \
  "if not held then\n"                                                        \
  " lu,holder=0,''\n"                                                         \
  " if " OVER("now") " then nu,fu,iu,bytes,gone=0,0,0,'',true end\n"          \
  "end\n"                                                                     \
  "if held and lu==0 then till=false\n"                                       \
  "elseif bytes=='' then till=math.max(lu,nu,now)\n"                          \
  "elseif iu>0 then till=math.max(lu,iu) end\n"                               \
  "said=P('<BI8BBI2I4I8I8I8I8I8I8I8I8',gone and 2 or 1,clock,1,"              \
  "held and 1 or 0,#holder,0,rver,tok,stamp,now,lu,nu,fu,iu)\n"               \
  "local h,x=said:sub(10)\n"                                                  \
  "local n=h..holder..bytes\n"                                                \
  "if " wake " then"                                                          \
  " C('PUBLISH'," k ",said:sub(2,9)..(#n<=2048 and n or h)) end\n"            \
  "if till then x=redis.pcall('SET'," k ",n,'PX',math.ceil((till-now+"        \
  STRING(EXPIRY_GRACE_US) ")/1000))\n"                                        \
  "else x=redis.pcall('SET'," k ",n) end\n"                                   \
  "if x.err then\n"                                                           \
  " if not gone then return x end\n"                                          \
  " C('DEL'," k ")\n"                                                         \
  "end\n"                                                                     \
  "if till and mortal then"                                                   \
  " redis.pcall('PEXPIRE'," k "..'" EGI_REDIS_COUNTS                          \
  "',math.ceil((till-now+" STRING(EXPIRY_GRACE_US) ")/1000))\n"               \
  "elseif kept then redis.pcall('PERSIST'," k "..'" EGI_REDIS_COUNTS "') "    \
  "end\n"
/* clang-format on */

/* A list of 100 to 109: most runs cost it one command.  What cannot be written
** changes nothing else. */
#define PAST                                                                  \
  "if by then\n"                                                              \
  " by=redis.pcall('LPUSH',KEYS[2],by..ARGV[4])\n"                            \
  " if type(by)=='number' and by%10==1 then\n"                                \
  "  redis.pcall('LTRIM',KEYS[2],0,99)\n"                                     \
  "  redis.pcall('PEXPIRE',KEYS[2],7776000000)\n"                             \
  " end\n"                                                                    \
  "end\n"

#define ODD "redis.error_reply('ODD the key holds something else')"

/* KEYS[1]; ARGV: packed, bytes, holder; of a swap that ends a run KEYS[2] and
** ARGV[4]: the list of ended runs, and what is kept of this one behind its
** token and owner line.
** Says: 0, time, value | 1 (2: absent now), time, head, and the value before
** where that was asked for. */
static const char swap_text[] = PRELUDE
    "local w,hold,fl,expect,token,lease,nb,fresh,life="
    "U('<BBBxI8I8I8I8I8I8',ARGV[1])\n"
    "v=C('GET',KEYS[1])\n" READ "if not good then return " ODD " end\n"
    "if ver~=expect or token>0 and not (held and tok==token)"
    " or hold==1 and held then\n"
    " return P('<BI8',0,clock)..(v or '')\n"
    "end\n"
    "rver=rver<last and last or rver+1\n"
    "local by=KEYS[2] and P('<I8I2',tok,#holder)..holder\n"
    "if w==2 then bytes,stamp=ARGV[2],last elseif w==1 then "
    "forgot,bytes=bytes~='','' end\n"
    "if hold==1 then\n"
    " held,holder,lu,tok=true,ARGV[3],lease>0 and last+lease or 0,rver\n"
    "elseif hold>=2 then\n"
    " held=false\n"
    " if hold==3 then tok=rver end\n"
    "end\n"
    "if fl%4<2 then nu=nb>0 and last+nb or 0 end\n"
    "if fl%8<4 then fu=fresh>0 and last+fresh or 0 end\n"
    "kept=iu>0\n"
    "if fl%16<8 then iu=life>0 and last+life or 0 end\n"
    "kept=kept and iu==0\n" WRITE("KEYS[1]", "fl%2==1") PAST
    "if fl>=16 then said=said..(v or '') end\n"
    "return said\n";

/* KEYS; ARGV: lease in us (0: the hold ends), then a token for each key.
** Says for each: 1, or 0 where that token does not hold. */
static const char ends_text[] = PRELUDE
    "local lease,out=tonumber(ARGV[1]),{}\n"
    "for i,k in ipairs(KEYS) do\n"
    " v=C('GET',k)\n" READ " out[i]=0\n"
    " if good and held and tok==tonumber(ARGV[i+1]) then\n"
    "  out[i]=1\n"
    "  if lease==0 then held,rver=false,rver<last and last or rver+1\n"
    "  elseif lu>0 then lu=math.max(lu,last+lease) end\n"
    "  if lease==0 or lu>0 then\n" WRITE("k", "lease==0") "  end\n"
                                                          " end\n"
                                                          "end\n"
                                                          "return out\n";

/* KEYS[1]; ARGV: token of a grant, the value before it.  Takes the grant back
** as if it had not been, but for version and token.  Says 1 or 0. */
static const char undo_text[] = PRELUDE
    "v=C('GET',KEYS[1])\n" READ "if not good then return " ODD " end\n"
    "if not held or tok~=tonumber(ARGV[1]) then return 0 end\n"
    "local version,token=rver<last and last or rver+1,tok\n"
    "v=ARGV[2]~='' and ARGV[2]\n" READ
    "rver,tok=version,token\n" WRITE("KEYS[1]", "true") "return 1\n";

egi_script egi_script_swap = {swap_text, ""},
           egi_script_ends = {ends_text, ""},
           egi_script_undo = {undo_text, ""};

void egi_scripts_init(void) {
  egi_sha1_hex(swap_text, egi_script_swap.sha);
  egi_sha1_hex(ends_text, egi_script_ends.sha);
  egi_sha1_hex(undo_text, egi_script_undo.sha);
  egi_sha1_hex(egi_script_add.text, egi_script_add.sha);
}

/* ------------------------------------------------------------- numbers -- */

uint64_t egi_unpack64(const void *at) {
  const unsigned char *b = at;
  uint64_t number = 0;
  for (int i = 7; i >= 0; i--)
    number = number << 8 | b[i];
  return number;
}

void egi_pack64(void *at, uint64_t number) {
  unsigned char *b = at;
  for (int i = 0; i < 8; i++, number >>= 8)
    b[i] = (unsigned char)number;
}

/* A duration, no longer than anybody lives. */
static uint64_t micro(int64_t ms) {
  if (ms <= 0)
    return 0;
  return (uint64_t)(ms < EGI_LONG_US / 1000 ? ms * 1000 : EGI_LONG_US);
}

void egi_swap_pack(const egi_swap *swap, bool gives_back, unsigned char *out) {
  unsigned flags = (swap->wake ? 1u : 0u) |
                   (swap->not_before_ms == EGI_LEAVE_TIME ? 2u : 0u) |
                   (swap->fresh_ms == EGI_LEAVE_TIME ? 4u : 0u) |
                   (swap->life_ms == EGI_LEAVE_TIME ? 8u : 0u) |
                   (gives_back ? 16u : 0u);
  out[0] = (unsigned char)swap->write;
  out[1] = (unsigned char)swap->hold;
  out[2] = (unsigned char)flags;
  out[3] = 0;
  egi_pack64(out + 4, swap->expect);
  egi_pack64(out + 12, swap->token);
  egi_pack64(out + 20, micro(swap->lease_ms));
  egi_pack64(out + 28, micro(swap->not_before_ms));
  egi_pack64(out + 36, micro(swap->fresh_ms));
  egi_pack64(out + 44, micro(swap->life_ms));
}

_Static_assert(EGI_PAST_KEPT == 100, "and this one");
_Static_assert(EGI_LEAVE == 0 && EGI_FORGET == 1 && EGI_PUT == 2,
               "the script knows these numbers");
_Static_assert(EGI_KEEP == 0 && EGI_TAKE == 1 && EGI_DROP == 2 &&
                   EGI_BREAK == 3,
               "and these");

/* ------------------------------------------------------------- reading -- */

static int64_t field(const char *value, size_t at) {
  return (int64_t)egi_unpack64(value + at);
}

bool egi_value_read(const char *value, size_t len, int64_t now_us,
                    egi_seen *seen) {
  egi_row_absent(now_us, seen);
  if (value == NULL || len == 0)
    return true;
  if (len < EGI_REDIS_HEAD || value[0] != 1)
    return false;
  size_t holder = (unsigned char)value[2] + (unsigned char)value[3] * 256u;
  if (len - EGI_REDIS_HEAD < holder)
    return false;
  egi_row row = {.version = egi_unpack64(value + 8),
                 .token = egi_unpack64(value + 16),
                 .held = (value[1] & 1) != 0,
                 .stamp = field(value, 24),
                 .last = field(value, 32),
                 .lease = field(value, 40),
                 .not_before = field(value, 48),
                 .fresh = field(value, 56),
                 .life = field(value, 64),
                 .holder = {value + EGI_REDIS_HEAD, holder},
                 .bytes = {value + EGI_REDIS_HEAD + holder,
                           len - EGI_REDIS_HEAD - holder}};
  egi_row_see(&row, now_us, seen);
  return true;
}

/* A head that came without what belongs to it. */
static bool read_head(const char *head, bool gone, int64_t now_us,
                      egi_seen *seen) {
  char alone[EGI_REDIS_HEAD + 1];
  memcpy(alone, head, EGI_REDIS_HEAD);
  alone[2] = alone[3] = 0;
  alone[EGI_REDIS_HEAD] = 'x'; /* as if there were bytes: they are not told */
  bool good = egi_value_read(alone, gone ? 0 : sizeof alone, now_us, seen);
  seen->at.token = egi_unpack64(head + 16);
  seen->bytes = seen->holder = (eg_bytes){NULL, 0};
  return good;
}

bool egi_reply_read(const redisReply *reply, bool *landed, egi_seen *seen) {
  if (reply->type != REDIS_REPLY_STRING ||
      (size_t)reply->len < EGI_REDIS_REPLY)
    return false;
  size_t len = (size_t)reply->len - EGI_REDIS_REPLY;
  const char *value = reply->str + EGI_REDIS_REPLY;
  int64_t now = field(reply->str, 1);
  *landed = reply->str[0] != 0;
  if (!*landed)
    return egi_value_read(value, len, now, seen);
  return len >= EGI_REDIS_HEAD &&
         read_head(value, reply->str[0] == 2, now, seen);
}
