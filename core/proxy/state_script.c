/* The scripts that Redis runs, each as one. Times are microseconds since a day of 2023, so that a double has sixty steps in
 * each of them; what a count's key holds is when all that was taken will have flowed off (limit.h). */
#include "proxy/state.h"

/* Keys, and five arguments for each, the first of them what is done:
 *   T cost, cost held against the room, room, patience   take of a rate (costs are times)
 *   L limit, name, ms                                     take a place, for so long
 *   A time                                                put right: add to what is taken, or (below 0) give back
 *   N name, ms                                            the place is held for so long from now
 *   R name                                                give the place back
 * All of T and L are taken or none. {1, for each: T what is ahead now; L how many are taken; else 0}; or {0, which one has no
 * room (from 1), when it has (T), -1 (L)}. */
const char claw_state_decide[] =
    "local t = redis.call('TIME')\n"
    "local now = (t[1] - 1700000000) * 1000000 + t[2]\n"
    "local new, out = {}, {1}\n"
    "local function keep(key, tat)\n"
    "  if tat <= now then redis.call('DEL', key)\n"
    "  else redis.call('SET', key, string.format('%.17g', tat), 'PX', string.format('%.0f', math.ceil((tat - now) / 1000) + 1)) end\n"
    "end\n"
    "for i, key in ipairs(KEYS) do\n"
    "  local at = i * 5 - 4\n"
    "  local op = ARGV[at]\n"
    "  out[i + 1] = 0\n"
    "  if op == 'T' then\n"
    "    local from = math.max(tonumber(redis.call('GET', key) or now), now)\n"
    "    local ahead = from + ARGV[at + 2] - now - ARGV[at + 3]\n"
    "    if ahead > tonumber(ARGV[at + 4]) then return {0, i, math.ceil(ahead)} end\n"
    "    new[i] = from + ARGV[at + 1]\n"
    "    out[i + 1] = math.ceil(new[i] - now)\n"
    "  elseif op == 'L' then\n"
    "    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)\n"
    "    local held = redis.call('ZCARD', key)\n"
    "    if held >= tonumber(ARGV[at + 1]) then return {0, i, -1} end\n"
    "    out[i + 1] = held + 1\n"
    "  end\n"
    "end\n"
    "for i, key in ipairs(KEYS) do\n"
    "  local at = i * 5 - 4\n"
    "  local op, name, ms = ARGV[at], ARGV[at + 1], ARGV[at + 2]\n"
    "  if op == 'L' then op, name, ms = 'N', ARGV[at + 2], ARGV[at + 3] end\n"
    "  if op == 'T' then keep(key, new[i])\n"
    "  elseif op == 'N' then\n"
    "    redis.call('ZADD', key, string.format('%.17g', now + ms * 1000), name)\n"
    "    redis.call('PEXPIRE', key, ms + 1000)\n"
    "  elseif op == 'R' then redis.call('ZREM', key, name)\n"
    "  elseif op == 'A' then\n"
    "    local by, tat = tonumber(name), tonumber(redis.call('GET', key) or now)\n"
    "    if by > 0 then tat = math.max(tat, now) end\n"
    "    keep(key, tat + by)\n"
    "  end\n"
    "end\n"
    "return out\n";

/* Keys: instances, the number of this one's last batch, what is set aside, the number of the last of those, the cache's epoch;
 * one for each client.
 * Arguments: this instance, ms it is alive, the batch's number, the last event heard of, is it leaving; how many events, for each its
 * field, ms, how; for each client when its day, week and month began, what is known to be spent in each of the four periods, and
 * what is to be added.
 * {instances, number of the last event, how many events, for each: field, how, ms; for each client: four beginnings, four sums}.
 * A batch that was counted before (its answer was lost) adds nothing. */
const char claw_state_sync[] =
    "local t = redis.call('TIME')\n"
    "local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"
    "local me, alive, events = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[6])\n"
    "local function text(n) return string.format('%.0f', n) end\n"
    "local most = 9007199254740991\n" /* CLAW_SPEND_MOST */
    "local new = tonumber(redis.call('GET', KEYS[2]) or 0) < tonumber(ARGV[3])\n"
    "redis.call('SET', KEYS[2], ARGV[3], 'PX', 86400000)\n"
    "if ARGV[5] == '1' then redis.call('ZREM', KEYS[1], me) else redis.call('ZADD', KEYS[1], text(now), me) end\n"
    "redis.call('PEXPIRE', KEYS[1], text(2 * alive))\n"
    "redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', text(now - alive))\n"
    "local at = 7\n"
    "for i = 1, events do\n"
    "  local ms, how = tonumber(ARGV[at + 1]), ARGV[at + 2]\n"
    "  if how == 'r' then ms = 86400000 elseif how == 'c' or how == 'p' then ms = 60000 end\n"
    "  if new and how == 'p' then redis.call('INCR', KEYS[5]) end\n"
    "  if new then\n"
    "    redis.call('HSET', KEYS[3], ARGV[at], redis.call('INCR', KEYS[4]) .. ':' .. me .. ':' .. text(now + ms) .. ':' .. how)\n"
    "    redis.call('PEXPIRE', KEYS[3], 86400000)\n"
    "    redis.call('PEXPIRE', KEYS[4], 2 * 86400000)\n"
    "  end\n"
    "  at = at + 3\n"
    "end\n"
    "local last, seen = tonumber(redis.call('GET', KEYS[4]) or 0), tonumber(ARGV[4])\n"
    "local out = {redis.call('ZCARD', KEYS[1]), last, 0}\n"
    "if last ~= seen then\n"
    "  local all = redis.call('HGETALL', KEYS[3])\n"
    "  for i = 1, #all, 2 do\n"
    "    local n, who, till, how = all[i + 1]:match('^(%d+):(%x+):(%d+):(%a)$')\n"
    "    local left = n and tonumber(till) - now or 0\n"
    "    if left <= 0 then redis.call('HDEL', KEYS[3], all[i])\n"
    "    elseif who ~= me and (last < seen or tonumber(n) > seen) then\n"
    "      out[3] = out[3] + 1\n"
    "      out[#out + 1], out[#out + 2], out[#out + 3] = all[i], how, left\n"
    "    end\n"
    "  end\n"
    "end\n"
    "local names, begins = {'d', 'w', 'm', 't'}, {'D', 'W', 'M', 'T'}\n"
    "for k = 6, #KEYS do\n"
    "  local there, put = redis.call('HMGET', KEYS[k], 'd', 'w', 'm', 't', 'D', 'W', 'M', 'T'), {}\n"
    "  for p = 1, 4 do\n"
    "    local sum, begin = tonumber(there[p] or 0), tonumber(there[p + 4] or -1)\n"
    "    local given = p < 4 and tonumber(ARGV[at + p - 1]) or 0\n"
    "    local known, more = tonumber(ARGV[at + 2 + p]), tonumber(ARGV[at + 6 + p])\n"
    "    local was, began = sum, begin\n"
    "    if begin < given then begin, sum = given, 0 end\n"
    "    if begin > given then known = 0 end\n"
    "    if new then sum = math.max(sum, known) + more\n"
    "    elseif begin == given then sum = math.max(sum, known + more) end\n"
    "    sum = math.min(sum, most)\n"
    "    if sum ~= was or begin ~= began then\n"
    "      put[#put + 1], put[#put + 2], put[#put + 3], put[#put + 4] = names[p], text(sum), begins[p], text(begin)\n"
    "    end\n"
    "    there[p], there[p + 4] = sum, begin\n"
    "  end\n"
    "  if #put > 0 then\n"
    "    redis.call('HSET', KEYS[k], unpack(put))\n"
    "    redis.call('PEXPIRE', KEYS[k], text(400 * 86400000))\n"
    "  end\n"
    "  for p = 5, 8 do out[#out + 1] = there[p] end\n"
    "  for p = 1, 4 do out[#out + 1] = there[p] end\n"
    "  at = at + 11\n"
    "end\n"
    "return out\n";

/* Keys: an answer's, the cache's epoch. {the answer, "" without one; ms it is kept still; the epoch}. */
const char claw_state_fetch[] =
    "return {redis.call('GET', KEYS[1]) or '', redis.call('PTTL', KEYS[1]), tonumber(redis.call('GET', KEYS[2]) or 0)}\n";

/* The same keys; the answer, ms to keep it, the epoch it was begun in: of another one it is not kept. {1, or 0}. */
const char claw_state_keep[] =
    "if (redis.call('GET', KEYS[2]) or '0') ~= ARGV[3] then return {0} end\n"
    "redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])\n"
    "return {1}\n";
