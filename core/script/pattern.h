/* pattern: Lua's patterns with a bound on the work.
 *
 * The string library's own matcher backtracks for as long as it takes, in C, where no hook can stop it. This one means the
 * same in every detail (Lua 5.1 as LuaJIT reads it, but a NUL in a pattern is a character) and counts its steps: inside a policy's call it looks at the call's
 * budget, elsewhere (`matches` of a route) the steps are bounded by the subject's length. It raises when that is used up.
 * Searching for a plain text takes linear time.
 *
 * The methods of strings, ("x"):find(p), are these in the whole VM; lua/claw's own `string.find` stays the library's.
 */
#ifndef CLAW_SCRIPT_PATTERN_H
#define CLAW_SCRIPT_PATTERN_H

#include <lua.h>

/* Make the methods of strings. Once a VM. */
void claw_pattern_register(lua_State *L);
/* Push a new table with find, match, gmatch, gsub. */
void claw_pattern_push_functions(lua_State *L);

#endif
