/* document: a JSON body as policies see it, a userdata over a copy-on-write document.
 *
 *   doc.field  doc[i]           scalars come out as Lua values, arrays and objects as documents; nil: not there
 *   doc.field = v  doc[i] = v   scalars, tables, documents (copied); nil removes a member, or the last element
 *   #doc                        elements or members
 *   tostring(doc)               its JSON text; what nobody changed is byte for byte what came
 *   a == b                      the same place
 * and methods, where an object has no member of that name (an object's member always wins):
 *   doc:each()                  for i, v in doc:each() / for key, v in doc:each()
 *   doc:get("a.b[0].c")         a value by path (0-based, negative from the end)
 *   doc:table()                 a plain Lua table
 *   arrays: doc:insert(i, v) (i nil: at the end)  doc:append(v)  doc:remove(i)
 *   doc:type()                  "array" or "object". An object answers only when called as core.doc.type(doc):
 *                               doc.type is nil when it has no such member, for "type" is a common one
 * Documents die with their request; later use raises.
 */
#ifndef CLAW_SCRIPT_DOCUMENT_H
#define CLAW_SCRIPT_DOCUMENT_H

#include "script/value.h"

/* Make the metatable. Once a VM. */
void claw_document_register(lua_State *L);
/* Push a copy of `like`. */
void claw_document_push(lua_State *L, const struct claw_document *like);
/* Push the methods as a table of functions: type(doc), each(doc) … */
void claw_document_push_functions(lua_State *L);

#endif
