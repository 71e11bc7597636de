/* SPDX-License-Identifier: MIT
** What a record is in a PostgreSQL database, and the statements that change
** it.
**
** Times are microseconds since the epoch by the server's clock, versions at
** least that.  T, the time by which a statement decides, is that of the clock
** or of `last`, whichever is later: a clock that is set back prolongs nothing.
** It is read before a row is locked, so it may be early: for one version that
** is safe, since what is over stays over.
**
** Rows are cleared, not deleted: a row that is deleted and made again while
** others wait for it has been seen to let a token fall.  Those that nobody has
** used for a day are swept.
**
** `waits` is 1 when somebody waits for the key.  A swap that wakes makes it 2,
** and any other swap takes the 2 away: so whoever finds a 2 in the row that it
** has just written is the one that has to tell, once.  Who is told and goes on
** waiting makes it 1 again.
*/
#include "store/postgres.h"

#include <string.h>

enum { BOOL = 16, BYTEA = 17, INT8 = 20, INT4 = 23, TEXT = 25 };
enum { BYTEAS = 1001, INT8S = 1016 };

/* clang-format off */
#define CLOCK "(date_part('epoch',clock_timestamp())*1000000)::bigint"
#define FROM_CLOCK "(SELECT " CLOCK " AS c) n"

/* Of the row r at the time t. */
#define HELD(t) "(r.held AND (r.lease=0 OR r.lease>" t "))"
#define ABSENT(t)                                                             \
  "(NOT " HELD(t) " AND (r.bytes IS NULL AND r.nb<=" t                        \
  " OR r.life>0 AND r.life<=" t "))"

/* A duration in a parameter as an end, or what it was where it is below 0. */
#define END(parameter, t, was)                                                \
  "CASE WHEN " parameter "<0 THEN " was " WHEN " parameter                    \
  "=0 THEN 0 ELSE " t "+" parameter " END"

#define WAITS(wake)                                                           \
  "CASE WHEN r.waits<>1 THEN 0 WHEN " wake " THEN 2 ELSE 1 END"

#define TELL(channel)                                                         \
  "pg_notify(" channel ",concat_ws(' ',encode(r.k,'hex'),r.ver,r.tok,"        \
  "r.stamp,r.last,r.nb,r.fresh,r.life,CASE WHEN r.held THEN 'held' "          \
  "WHEN r.bytes IS NULL THEN '-' WHEN octet_length(r.bytes)<=1500 "           \
  "THEN encode(r.bytes,'hex') ELSE 'large' END))"

/* 1 ns, 2 key, 3 expect, 4 token, 5 write, 6 hold, 7 bytes, 8 holder, 9 lease,
** 10 notBefore, 11 fresh, 12 life (us), 13 wake, 14 channel */
#define SWAP_TYPES                                                            \
  {BYTEA, BYTEA, INT8, INT8, INT4, INT4, BYTEA,                               \
   BYTEA, INT8,  INT8, INT8, INT8, BOOL, TEXT}

/* What a swap leaves: bytes are not told but whether there are any. */
#define LEFT_TELLING(told)                                                    \
  " RETURNING r.ver,r.tok,r.held,r.stamp,r.last,r.lease,r.nb,r.fresh,r.life," \
  "NULL::bytea,CASE WHEN r.bytes IS NULL THEN NULL ELSE '\\x78'::bytea END,"  \
  "r.last,true," told
#define LEFT LEFT_TELLING("CASE WHEN r.waits=2 THEN " TELL("$14") "::text END")

#define T "greatest(n.c,r.last)"
#define UPDATE                                                                \
  "UPDATE eg_records r SET ver=greatest(r.ver+1," T "),"                      \
  "tok=CASE WHEN $6 IN (1,3) THEN greatest(r.ver+1," T ") ELSE r.tok END,"    \
  "held=CASE $6 WHEN 1 THEN true WHEN 0 THEN " HELD(T) " ELSE false END,"     \
  "holder=CASE WHEN $6=1 THEN $8 WHEN $6=0 AND " HELD(T) " THEN r.holder "    \
  "END,"                                                                      \
  "lease=CASE WHEN $6=1 THEN " END("$9", T, "0") " WHEN $6=0 AND " HELD(T)    \
  " THEN r.lease ELSE 0 END,"                                                 \
  "bytes=CASE $5 WHEN 2 THEN $7 WHEN 1 THEN NULL ELSE r.bytes END,"           \
  "stamp=CASE $5 WHEN 2 THEN " T " ELSE r.stamp END,"                         \
  "nb=" END("$10", T, "r.nb") ",fresh=" END("$11", T, "r.fresh") ","          \
  "life=" END("$12", T, "r.life") ",last=" T ",waits=" WAITS("$13")           \
  " FROM " FROM_CLOCK " WHERE r.ns=$1 AND r.k=$2 AND r.ver=$3 AND NOT "       \
  ABSENT(T) " AND ($4=0 OR r.tok=$4 AND " HELD(T) ") AND ($6<>1 OR NOT "      \
  HELD(T) ")" LEFT

/* An absent key: no row, or one that means nothing any more. */
#define X "greatest(excluded.last,r.last)"
#define V "greatest(r.ver+1," X ")"
#define INSERT                                                                \
  "INSERT INTO eg_records AS r (ns,k,ver,tok,held,stamp,last,lease,nb,fresh," \
  "life,waits,holder,bytes) SELECT $1,$2,n.c,"                                \
  "CASE WHEN $6 IN (1,3) THEN n.c ELSE 0 END,$6=1,"                           \
  "CASE WHEN $5=2 THEN n.c ELSE 0 END,n.c,"                                   \
  "CASE WHEN $6=1 THEN " END("$9", "n.c", "0") " ELSE 0 END,"                 \
  END("$10", "n.c", "0") "," END("$11", "n.c", "0") ","                       \
  END("$12", "n.c", "0") ",0,CASE WHEN $6=1 THEN $8 END,"                     \
  "CASE WHEN $5=2 THEN $7 END FROM " FROM_CLOCK " WHERE $4=0 "                \
  "ON CONFLICT (ns,k) DO UPDATE SET ver=" V ","                               \
  "tok=CASE WHEN $6 IN (1,3) THEN " V " ELSE 0 END,held=$6=1,"                \
  "stamp=CASE WHEN $5=2 THEN " X " ELSE 0 END,last=" X ","                    \
  "lease=CASE WHEN $6=1 THEN " END("$9", X, "0") " ELSE 0 END,"               \
  "nb=" END("$10", X, "0") ",fresh=" END("$11", X, "0") ","                   \
  "life=" END("$12", X, "0") ",waits=" WAITS("$13") ","                       \
  "holder=excluded.holder,bytes=excluded.bytes WHERE " ABSENT(X) LEFT

/*
** What is usual, with little to reckon: the server sets up the expressions of
** a statement anew whenever it executes it, and with those of the two above
** that is most of what they cost.  The same parameters, and the same meaning
** for swaps of that kind: an absent key is taken by nobody's token and nobody
** is told; a holder lets go under its token, and who waits is told.  What is
** held is not absent.
*/
#define NONE(t) "0"
#define AT(t) t
#define AHEAD(parameter, t)                                                   \
  "CASE WHEN " parameter ">0 THEN " t "+" parameter " ELSE 0 END"
#define FRESH(t) AHEAD("$11", t)
#define LIFE(t) AHEAD("$12", t)
#define TAKE(bytes, stamp, fresh, life)                                       \
  "INSERT INTO eg_records AS r (ns,k,ver,tok,held,stamp,last,lease,nb,fresh," \
  "life,waits,holder,bytes) SELECT $1,$2,n.c,n.c,true," stamp("n.c") ",n.c,"  \
  AHEAD("$9", "n.c") "," AHEAD("$10", "n.c") "," fresh("n.c") ","             \
  life("n.c") ",0,$8," bytes " FROM " FROM_CLOCK                              \
  " ON CONFLICT (ns,k) DO UPDATE SET ver=" V ",tok=" V ",held=true,stamp="    \
  stamp(X) ",last=" X ",lease=" AHEAD("$9", X) ",nb=" AHEAD("$10", X)         \
  ",fresh=" fresh(X) ",life=" life(X) ",waits=CASE WHEN r.waits=1 THEN 1 "    \
  "ELSE 0 END,holder=excluded.holder,bytes=excluded.bytes WHERE " ABSENT(X)   \
  LEFT_TELLING("NULL::text")
#define LET_GO(also)                                                          \
  "UPDATE eg_records r SET ver=greatest(r.ver+1," T "),held=false,"           \
  "holder=NULL,lease=0,last=" T ",waits=CASE WHEN r.waits=1 THEN 2 ELSE 0 "   \
  "END" also " FROM " FROM_CLOCK " WHERE r.ns=$1 AND r.k=$2 AND r.ver=$3 "    \
  "AND r.tok=$4 AND " HELD(T) LEFT
#define PUT                                                                   \
  ",bytes=$7,stamp=" T ",nb=" END("$10", T, "r.nb") ",fresh="                 \
  END("$11", T, "r.fresh") ",life=" END("$12", T, "r.life")

/* What a swap left, by the statement, and a row of the run that it ended:
** 15 start, 16 duration, 17 status, 18 error, 19 owner, 20 exit status */
#define REMEMBER(statement, landed)                                           \
  "WITH s(a,b,c,d,e,f,g,h,i,j,k,l,m,n) AS (" statement "),p AS (INSERT INTO " \
  "eg_history (ns,k,tok,start,duration,status,error,owner,exit_status) "      \
  "SELECT $1,$2,$4,$15,$16,$17,$18,$19,$20 FROM s WHERE " landed              \
  ") SELECT * FROM s"
#define PAST_TYPES                                                            \
  {BYTEA, BYTEA, INT8, INT8, INT4, INT4, BYTEA, BYTEA, INT8,  INT8,           \
   INT8,  INT8,  BOOL, TEXT, INT8, INT8, TEXT,  BYTEA, BYTEA, INT4}

#define ROW                                                                   \
  "r.ver,r.tok,r.held,r.stamp,r.last,r.lease,r.nb,r.fresh,r.life,r.holder,"   \
  "r.bytes,"
#define LOAD                                                                  \
  "SELECT " ROW "n.c FROM " FROM_CLOCK                                        \
  " LEFT JOIN eg_records r ON r.ns=$1 AND r.k=$2"
/* clang-format on */

const egi_pg_text egi_pg_texts[EGI_PG_STATEMENTS] = {
    [EGI_PG_LOAD] = {"eg_load", LOAD, 2, {BYTEA, BYTEA}},
    [EGI_PG_UPDATE] = {"eg_update", UPDATE, 14, SWAP_TYPES},
    [EGI_PG_INSERT] = {"eg_insert", INSERT, 14, SWAP_TYPES},
    [EGI_PG_LOCK] = {"eg_lock", TAKE("NULL::bytea", NONE, NONE, NONE), 14,
                     SWAP_TYPES},
    [EGI_PG_UNLOCK] = {"eg_unlock", LET_GO(""), 14, SWAP_TYPES},
    [EGI_PG_BEGIN] = {"eg_begin", TAKE("$7", AT, FRESH, LIFE), 14, SWAP_TYPES},
    [EGI_PG_SWAP] = {"eg_swap",
                     "SELECT * FROM eg_swap($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,"
                     "$11,$12,$13,$14)",
                     14, SWAP_TYPES},
    [EGI_PG_RENEW] = {"eg_renew",
                      "UPDATE eg_records r SET lease=CASE WHEN r.lease=0 THEN "
                      "0 ELSE greatest(r.lease," T "+$4) END,last=" T
                      " FROM " FROM_CLOCK ",unnest($2,$3) AS u(k,tok) "
                      "WHERE r.ns=$1 AND r.k=u.k AND r.tok=u.tok AND " HELD(
                          T) " RETURNING r.tok,r.k",
                      4,
                      {BYTEA, BYTEAS, INT8S, INT8}},
    [EGI_PG_END] =
        {"eg_end",
         "UPDATE eg_records r SET held=false,lease=0,holder=NULL,"
         "ver=greatest(r.ver+1," T "),last=" T ",waits=" WAITS(
             "true") " FROM " FROM_CLOCK
                     ",unnest($2,$3) AS u(k,tok) WHERE r.ns=$1 AND r.k=u.k "
                     "AND r.tok=u.tok AND r.held RETURNING r.tok,r.k,"
                     "CASE WHEN r.waits=2 THEN " TELL("$4") "::text END",
         4,
         {BYTEA, BYTEAS, INT8S, TEXT}},
    [EGI_PG_MARK] =
        {"eg_mark",
         "INSERT INTO eg_records AS r (ns,k,ver,tok,held,stamp,"
         "last,lease,nb,fresh,life,waits) SELECT $1,$2,n.c,0,"
         "false,0,n.c,0,0,0,0,1 FROM " FROM_CLOCK
         " ON CONFLICT (ns,k) DO UPDATE SET waits=1 RETURNING " ROW CLOCK,
         2,
         {BYTEA, BYTEA}},
    [EGI_PG_LOOK] = {"eg_look",
                     "SELECT " ROW "n.c,u.i,r.waits FROM " FROM_CLOCK
                     ",unnest($1,$2) WITH ORDINALITY AS u(ns,k,i) LEFT JOIN "
                     "eg_records r ON r.ns=u.ns AND r.k=u.k",
                     2,
                     {BYTEAS, BYTEAS}},
    [EGI_PG_SCAN] = {"eg_scan",
                     "SELECT " ROW "n.c,r.k FROM " FROM_CLOCK
                     ",eg_records r WHERE r.ns=$1 AND (r.k>$2 OR $4 AND "
                     "r.k=$2) AND r.k<=$5 AND substring(r.k FROM 1 FOR "
                     "octet_length($3))=$3 AND (r.bytes IS NOT NULL OR "
                     "r.held) ORDER BY r.k LIMIT 200",
                     5,
                     {BYTEA, BYTEA, BYTEA, BOOL, BYTEA}},
    [EGI_PG_LAST] = {"eg_last",
                     "SELECT k FROM eg_records WHERE ns=$1 ORDER BY k DESC "
                     "LIMIT 1",
                     1,
                     {BYTEA}},
    [EGI_PG_SWEEP] =
        {"eg_sweep",
         "DELETE FROM eg_records WHERE ctid=ANY(ARRAY(SELECT "
         "r.ctid FROM " FROM_CLOCK ",eg_records r WHERE "
         "r.last<n.c-86400000000 AND " ABSENT(
             "n.c-86400000000") " AND (r.waits<>1 OR r.last<n.c-604800000000) "
                                "LIMIT "
                                "1000 FOR UPDATE OF r SKIP LOCKED))",
         0,
         {0}},
    [EGI_PG_COUNT] = {"eg_count",
                      "INSERT INTO eg_counts AS c (ns,k,field,n,last) SELECT "
                      "$1,$2,u.f,u.n,n.c FROM " FROM_CLOCK
                      ",unnest($3,$4) AS u(f,n) ORDER BY u.f ON CONFLICT "
                      "(ns,k,field) DO UPDATE SET n=c.n+excluded.n,"
                      "last=excluded.last",
                      4,
                      {BYTEA, BYTEA, INT8S, INT8S}},
    [EGI_PG_COUNTS] = {"eg_counts",
                       "SELECT c.k,c.field,c.n FROM eg_counts c WHERE "
                       "c.ns=$1 AND c.k IN (SELECT DISTINCT d.k FROM "
                       "eg_counts d WHERE d.ns=$1 AND (d.k>$2 OR $4 AND "
                       "d.k=$2) AND (NOT $5 OR d.k=$2) AND substring(d.k FROM "
                       "1 FOR octet_length($3))=$3 ORDER BY d.k LIMIT 200) "
                       "ORDER BY c.k,c.field",
                       5,
                       {BYTEA, BYTEA, BYTEA, BOOL, BOOL}},
    [EGI_PG_UNCOUNT] = {"eg_uncount",
                        "DELETE FROM eg_counts c USING " FROM_CLOCK
                        " WHERE c.last<n.c-86400000000 AND NOT EXISTS (SELECT "
                        "1 FROM eg_records r WHERE r.ns=c.ns AND r.k=c.k AND "
                        "r.bytes IS NOT NULL)",
                        0,
                        {0}},
    [EGI_PG_UPDATE_PAST] = {"eg_update_past", REMEMBER(UPDATE, "true"), 20,
                            PAST_TYPES},
    [EGI_PG_COMMIT_PAST] = {"eg_commit_past", REMEMBER(LET_GO(PUT), "true"),
                            20, PAST_TYPES},
    [EGI_PG_SWAP_PAST] = {"eg_swap_past",
                          REMEMBER("SELECT * FROM eg_swap($1,$2,$3,$4,$5,$6,"
                                   "$7,$8,$9,$10,$11,$12,$13,$14)",
                                   "m"),
                          20, PAST_TYPES},
    [EGI_PG_PAST] = {"eg_past",
                     "SELECT k,tok,start,duration,status,error,owner,"
                     "exit_status,id FROM eg_history WHERE ns=$1 AND ($2 IS "
                     "NULL OR k=$2) AND id<$3 ORDER BY id DESC LIMIT 200",
                     3,
                     {BYTEA, BYTEA, INT8}},
    [EGI_PG_UNPAST] = {"eg_unpast",
                       "DELETE FROM eg_history WHERE "
                       "start<" CLOCK "-7776000000000 OR id<=(SELECT "
                       "max(id)-1000000 FROM eg_history)",
                       0,
                       {0}},
    [EGI_PG_NOTIFY] = {"eg_notify",
                       "SELECT pg_notify($1,$2)::text",
                       2,
                       {TEXT, TEXT}},
};

/* One transaction; whoever comes second waits, and finds all there. */
const char egi_pg_schema[] =
    "BEGIN; SELECT pg_advisory_xact_lock(7307199581412352101);"
    "CREATE TABLE IF NOT EXISTS eg_records ("
    "ns bytea NOT NULL,k bytea NOT NULL,ver bigint NOT NULL,"
    "tok bigint NOT NULL,held boolean NOT NULL,stamp bigint NOT NULL,"
    "last bigint NOT NULL,lease bigint NOT NULL,nb bigint NOT NULL,"
    "fresh bigint NOT NULL,life bigint NOT NULL,waits smallint NOT NULL,"
    "holder bytea,bytes bytea,PRIMARY KEY (ns,k)) "
    "WITH (fillfactor=50,autovacuum_vacuum_scale_factor=0.05);"
    "COMMENT ON TABLE eg_records IS 'executionguard 1';"
    "CREATE TABLE IF NOT EXISTS eg_counts ("
    "ns bytea NOT NULL,k bytea NOT NULL,field bigint NOT NULL,"
    "n bigint NOT NULL,last bigint NOT NULL,PRIMARY KEY (ns,k,field)) "
    "WITH (fillfactor=70);"
    "CREATE TABLE IF NOT EXISTS eg_history ("
    "id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,ns bytea NOT NULL,"
    "k bytea NOT NULL,tok bigint NOT NULL,start bigint NOT NULL,"
    "duration bigint NOT NULL,status text NOT NULL,error bytea,owner bytea,"
    "exit_status integer);"
    "CREATE INDEX IF NOT EXISTS eg_history_key ON eg_history (ns,k,id);"
    "CREATE OR REPLACE VIEW eg_overview AS SELECT "
    "encode(ns,'escape') AS namespace,encode(k,'escape') AS key,"
    "CASE WHEN bytes IS NULL THEN NULL ELSE (ARRAY['Idle','Running',"
    "'Completed','TimedOut','Failed'])[get_byte(bytes,2)%8+1] END AS status,"
    "held AND (lease=0 OR lease>" CLOCK ") AS held,tok AS token,"
    "CASE WHEN held AND octet_length(holder)>41 THEN encode(substring(holder "
    "FROM 42 FOR get_byte(holder,40)),'escape') END AS host,"
    "CASE WHEN held AND octet_length(holder)>41 THEN get_byte(holder,8)+"
    "256*get_byte(holder,9)+65536*get_byte(holder,10) END AS pid,"
    "CASE WHEN lease>0 THEN (lease-" CLOCK ")/1e6 END AS lease_seconds,"
    "CASE WHEN stamp>0 THEN to_timestamp(stamp/1e6) END AS written,"
    "encode(bytes,'escape') AS record,ver AS version FROM eg_records "
    "WHERE held OR bytes IS NOT NULL;"
    "CREATE OR REPLACE FUNCTION eg_swap(bytea,bytea,bigint,bigint,integer,"
    "integer,bytea,bytea,bigint,bigint,bigint,bigint,boolean,text) RETURNS "
    "TABLE (o0 bigint,o1 bigint,o2 boolean,o3 bigint,o4 bigint,o5 bigint,"
    "o6 bigint,o7 bigint,o8 bigint,o9 bytea,o10 bytea,o11 bigint,o12 boolean,"
    "o13 text) LANGUAGE plpgsql AS $eg$ BEGIN "
    "IF $3=0 THEN RETURN QUERY " INSERT ";"
    "ELSE RETURN QUERY " UPDATE "; END IF;"
    "IF NOT FOUND THEN RETURN QUERY SELECT " ROW
    "n.c,false,NULL::text FROM " FROM_CLOCK
    " LEFT JOIN eg_records r ON r.ns=$1 AND r.k=$2;"
    "END IF; END $eg$;"
    "CREATE OR REPLACE FUNCTION eg_check_token(namespace text,key text,"
    "token bigint) RETURNS void LANGUAGE plpgsql AS $eg$ "
    "DECLARE latest bigint; BEGIN "
    "SELECT r.tok INTO latest FROM eg_records r WHERE "
    "r.ns=convert_to(namespace,'UTF8') AND r.k=convert_to(key,'UTF8') "
    "FOR SHARE;"
    "IF latest IS NULL OR token<latest THEN RAISE EXCEPTION "
    "'token % of % in % is older than %',token,key,namespace,"
    "coalesce(latest::text,'what was forgotten since') "
    "USING ERRCODE='EG001',HINT='somebody else has been granted the key'; "
    "END IF; END $eg$;"
    "COMMIT";

/* ------------------------------------------------------------- reading -- */

static uint64_t big_endian(const char *value, int len) {
  uint64_t number = 0;
  for (int i = 0; i < len; i++)
    number = number << 8 | (unsigned char)value[i];
  return number;
}

int64_t egi_pg_int64(const PGresult *result, int i, int column) {
  int len = PQgetlength(result, i, column);
  uint64_t number = big_endian(PQgetvalue(result, i, column), len);
  return len == 8   ? (int64_t)number
         : len == 4 ? (int32_t)number
                    : (int16_t)number;
}

bool egi_pg_bool(const PGresult *result, int i, int column) {
  return PQgetlength(result, i, column) == 1 &&
         *PQgetvalue(result, i, column) != 0;
}

static eg_bytes bytes_of(const PGresult *result, int i, int column) {
  if (PQgetisnull(result, i, column))
    return (eg_bytes){NULL, 0};
  return (eg_bytes){PQgetvalue(result, i, column),
                    (size_t)PQgetlength(result, i, column)};
}

bool egi_pg_row_read(const PGresult *result, int i, egi_row *row,
                     int64_t *now_us) {
  memset(row, 0, sizeof *row);
  *now_us = egi_pg_int64(result, i, EGI_PG_NOW);
  if (PQgetisnull(result, i, 0))
    return false;
  row->version = (uint64_t)egi_pg_int64(result, i, 0);
  row->token = (uint64_t)egi_pg_int64(result, i, 1);
  row->held = egi_pg_bool(result, i, 2);
  row->stamp = egi_pg_int64(result, i, 3);
  row->last = egi_pg_int64(result, i, 4);
  row->lease = egi_pg_int64(result, i, 5);
  row->not_before = egi_pg_int64(result, i, 6);
  row->fresh = egi_pg_int64(result, i, 7);
  row->life = egi_pg_int64(result, i, 8);
  row->holder = bytes_of(result, i, 9);
  row->bytes = bytes_of(result, i, 10);
  return true;
}
