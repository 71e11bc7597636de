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

/* Reads a record at a time, and writes one.  `a` is 1 where it is absent;
** ver is what others see, rver what must not be used again. */
#define PRELUDE                                                               \
  "local P,U,C=struct.pack,struct.unpack,redis.call\n"                        \
  "local H='<BBI2I4I8I8I8I8I8I8I8I8'\n"                                       \
  "local t=C('TIME')\n"                                                       \
  "local clock=t[1]*1000000+t[2]\n"                                           \
  "local function read(v)\n"                                                  \
  " local r={ver=0,rver=0,tok=0,stamp=0,last=clock,lu=0,nu=0,fu=0,iu=0,"      \
  "holder='',bytes=''}\n"                                                     \
  " if not v then return r end\n"                                             \
  " local f,fl,hl,_\n"                                                        \
  " if #v>=72 then f,fl,hl,_,r.ver,r.tok,r.stamp,r.last,r.lu,r.nu,r.fu,r.iu"  \
  "=U(H,v) end\n"                                                             \
  " if f~=1 or #v<72+hl then return nil end\n"                                \
  " r.rver=r.ver\n"                                                           \
  " if r.last<clock then r.last=clock end\n"                                  \
  " local now=r.last\n"                                                       \
  " r.held=fl%2==1 and (r.lu==0 or r.lu>now)\n"                               \
  " r.bytes=v:sub(73+hl)\n"                                                   \
  " if r.held then r.holder=v:sub(73,72+hl) else r.lu=0 end\n"                \
  " if not r.held and (r.bytes=='' and r.nu<=now or r.iu>0 and r.iu<=now)"    \
  " then r.ver,r.tok,r.nu,r.fu,r.iu,r.bytes=0,0,0,0,0,'' end\n"               \
  " return r\n"                                                               \
  "end\n"                                                                     \
  "local function head(r)\n"                                                  \
  " return P(H,1,r.held and 1 or 0,#r.holder,0,r.rver,r.tok,r.stamp,r.last,"  \
  "r.lu,r.nu,r.fu,r.iu)\n"                                                    \
  "end\n"                                                                     \
  "local function write(k,r,wake)\n"                                          \
  " local now,till=r.last,nil\n"                                              \
  " if not r.held then\n"                                                     \
  "  r.lu,r.holder=0,''\n"                                                    \
  "  if r.bytes=='' and r.nu<=now or r.iu>0 and r.iu<=now then\n"             \
  "   r.nu,r.fu,r.iu,r.bytes,r.gone=0,0,0,'',true\n"                          \
  "  end\n"                                                                   \
  " end\n"                                                                    \
  " if r.held and r.lu==0 then till=nil\n"                                    \
  " elseif r.bytes=='' then till=math.max(r.lu,r.nu,now)\n"                   \
  " elseif r.iu>0 then till=math.max(r.lu,r.iu) end\n"                        \
  " local h=head(r)\n"                                                        \
  " local v=h..r.holder..r.bytes\n"                                           \
  " if wake then C('PUBLISH',k,P('<I8',clock)..(#v<=2048 and v or h)) end\n"  \
  " local x\n"                                                                \
  " if till then x=redis.pcall('SET',k,v,'PX',string.format('%.0f',"          \
  "math.ceil((till-now+" STRING(                                              \
      EXPIRY_GRACE_US) ")/1000)))\n"                                          \
                       " else x=redis.pcall('SET',k,v) end\n"                 \
                       " if x.err then\n"                                     \
                       "  if not r.gone then return x end\n"                  \
                       "  C('DEL',k)\n"                                       \
                       " end\n"                                               \
                       " return nil,h\n"                                      \
                       "end\n"                                                \
                       "local odd=redis.error_reply('ODD the key holds "      \
                       "something else')\n"

/* KEYS[1]; ARGV: packed, bytes, holder.
** Says: 0, time, value | 1 (2: absent now), time, head, and the value before
** where that was asked for. */
static const char swap_text[] = PRELUDE
    "local w,hold,fl,_,expect,token,lease,nb,fresh,life="
    "U('<BBBBI8I8I8I8I8I8',ARGV[1])\n"
    "local v=C('GET',KEYS[1])\n"
    "local r=read(v)\n"
    "if not r then return odd end\n"
    "if r.ver~=expect or token>0 and not (r.held and r.tok==token)"
    " or hold==1 and r.held then\n"
    " return P('<BI8',0,clock)..(v or '')\n"
    "end\n"
    "local now=r.last\n"
    "r.rver=math.max(r.rver+1,now)\n"
    "if w==2 then r.bytes,r.stamp=ARGV[2],now elseif w==1 then r.bytes='' "
    "end\n"
    "if hold==1 then\n"
    " r.held,r.holder,r.lu=true,ARGV[3],lease>0 and now+lease or 0\n"
    "elseif hold>=2 then r.held=false end\n"
    "if hold%2==1 then r.tok=r.rver end\n"
    "if fl%4<2 then r.nu=nb>0 and now+nb or 0 end\n"
    "if fl%8<4 then r.fu=fresh>0 and now+fresh or 0 end\n"
    "if fl%16<8 then r.iu=life>0 and now+life or 0 end\n"
    "local err,h=write(KEYS[1],r,fl%2==1)\n"
    "if err then return err end\n"
    "return P('<BI8',r.gone and 2 or 1,clock)..h..(fl>=16 and v or '')\n";

/* KEYS; ARGV: lease in us (0: the hold ends), then a token for each key.
** Says for each: 1, or 0 where that token does not hold. */
static const char ends_text[] = PRELUDE
    "local lease,out=tonumber(ARGV[1]),{}\n"
    "for i,k in ipairs(KEYS) do\n"
    " local r=read(C('GET',k))\n"
    " out[i]=0\n"
    " if r and r.held and r.tok==tonumber(ARGV[i+1]) then\n"
    "  local err\n"
    "  if lease==0 then\n"
    "   r.held,r.rver=false,math.max(r.rver+1,r.last)\n"
    "   err=write(k,r,true)\n"
    "  elseif r.lu>0 then\n"
    "   r.lu=math.max(r.lu,r.last+lease)\n"
    "   err=write(k,r)\n"
    "  end\n"
    "  if err then return err end\n"
    "  out[i]=1\n"
    " end\n"
    "end\n"
    "return out\n";

/* KEYS[1]; ARGV: token of a grant, the value before it.  Takes the grant back
** as if it had not been, but for version and token.  Says 1 or 0. */
static const char undo_text[] = PRELUDE
    "local r=read(C('GET',KEYS[1]))\n"
    "if not r then return odd end\n"
    "if not r.held or r.tok~=tonumber(ARGV[1]) then return 0 end\n"
    "local o=read(ARGV[2]~='' and ARGV[2])\n"
    "o.rver,o.tok=math.max(r.rver+1,r.last),r.tok\n"
    "local err=write(KEYS[1],o,true)\n"
    "return err or 1\n";

egi_script egi_script_swap = {swap_text, ""},
           egi_script_ends = {ends_text, ""},
           egi_script_undo = {undo_text, ""};

void egi_scripts_init(void) {
  egi_sha1_hex(swap_text, egi_script_swap.sha);
  egi_sha1_hex(ends_text, egi_script_ends.sha);
  egi_sha1_hex(undo_text, egi_script_undo.sha);
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
