-- document: a JSON body in a policy's hands, as the proxy gives one (a userdata there and here), in plain Lua.
--
--     slice    raw is its text, kids nil            opened    raw is its text still, kids has a slot for each child
--     changed  raw nil: what it says is what its kids say. Then all its parents are changed too.

local json = require("claw.json")
local slice = require("openclaw.slice")
local writer = require("openclaw.writer")

local M = {}

local nodes = setmetatable({}, { __mode = "k" }) -- userdata -> its node
local base = newproxy(true)                      -- all documents share its metatable

local function new_node(state, parent, raw)
    return { state = state, parent = parent, raw = raw, kind = slice.type_of(raw) }
end

local function wrap(node)
    local doc = newproxy(base)
    nodes[doc] = node
    return doc
end

local function kids_of(node)
    if not node.kids then
        node.kids = (node.kind == "array" or node.kind == "object") and slice.children(node.raw) or {}
    end
    return node.kids
end

local function write(node)
    if node.raw then return node.raw end
    local out = {}
    for i, kid in ipairs(node.kids) do
        out[i] = (kid.raw_key and kid.raw_key .. ":" or "") .. (kid.node and write(kid.node) or kid.raw)
    end
    local body = table.concat(out, ",")
    return node.kind == "array" and "[" .. body .. "]" or "{" .. body .. "}"
end

local function node_at(node, kid)
    if not kid.node then kid.node = new_node(node.state, node, kid.raw) end
    return kid.node
end

-- What Lua sees of a child: a scalar, or a document.
local function value_of(node, kid)
    if not kid then return nil end
    local raw = kid.node and kid.node.raw or kid.raw
    local kind = kid.node and kid.node.kind or slice.type_of(raw)
    if kind == "array" or kind == "object" then return wrap(node_at(node, kid)) end
    return slice.scalar(raw, true)
end

local function find(node, key)
    local kids = kids_of(node)
    for i = #kids, 1, -1 do -- of equal keys the last counts
        if kids[i].key == key then return kids[i], i end
    end
    return nil
end

local function touch(node)
    while node do
        kids_of(node)
        node.raw, node = nil, node.parent
    end
end

local function let_go(kid)
    if kid.node then kid.node.parent = nil end
end

-- ---- what methods and metamethods share. All raise plain messages; `guarded` puts the caller's place in front.

local function guarded(fn)
    return function(...)
        local ok, a, b, c = pcall(fn, ...)
        if ok then return a, b, c end
        error(a, 2)
    end
end

local function check(doc)
    local node = nodes[doc]
    if not node then
        error(("bad argument #1 (document expected, got %s)"):format(type(doc)), 0)
    end
    local life = node.state.life
    if life and life.over then error("the request is over: its documents cannot be used any more", 0) end
    return node
end

local function check_array(doc, what)
    local node = check(doc)
    if node.kind ~= "array" then error(what .. ": not an array", 0) end
    return node
end

local function check_writable(node)
    if node.state.readonly then
        error("this document is the original and read-only: change the hook's body argument", 0)
    end
end

local function check_index(i, max, what)
    if type(i) ~= "number" then error(("%s: an index must be a number, not a %s"):format(what, type(i)), 0) end
    if not (i >= 1 and i <= max) or i ~= math.floor(i) then
        error(("%s: there is no place %.14g in an array of %d"):format(what, i, max), 0)
    end
    return i
end

local function raw_of(doc)
    return nodes[doc] and write(check(doc))
end

local function fresh(key, v)
    return { key = key, raw_key = key and writer.quote(key), raw = writer.encode(v, raw_of) }
end

-- ---- methods

local methods = {}

function methods.type(v)
    if nodes[v] then return nodes[v].kind end
    return v == json.null and "null" or type(v)
end

methods.table = guarded(function(doc)
    return slice.plain(write(check(doc)))
end)

local function insert(doc, at, v)
    local node = check_array(doc, "insert")
    check_writable(node)
    local kids = kids_of(node)
    at = at == nil and #kids + 1 or check_index(at, #kids + 1, "insert")
    if v == nil then error("insert: nil is no JSON value (null is claw.json.null)", 0) end
    local kid = fresh(nil, v)
    touch(node)
    table.insert(kids, at, kid)
end
methods.insert = guarded(insert)

methods.append = guarded(function(doc, v)
    insert(doc, nil, v)
end)

methods.remove = guarded(function(doc, at)
    local node = check_array(doc, "remove")
    check_writable(node)
    local kids = kids_of(node)
    check_index(at, #kids, "remove")
    touch(node)
    let_go(table.remove(kids, at))
end)

methods.each = guarded(function(doc)
    local node, i = check(doc), 0
    return function()
        check(doc)
        i = i + 1
        local kid = kids_of(node)[i]
        if not kid then return nil end
        return kid.key or i, value_of(node, kid)
    end
end)

local function step(node, word, index)
    local kids = kids_of(node)
    if word then return node.kind == "object" and find(node, word) or nil end
    if node.kind ~= "array" then return nil end
    return kids[index < 0 and #kids + 1 + index or index + 1]
end

methods.get = guarded(function(doc, path)
    local node, rest, kid = check(doc), path, nil
    if type(path) ~= "string" then error("get: a path is a string", 0) end
    while rest ~= "" do
        local word, behind = rest:match("^([^.%[]+)(.*)$")
        local index
        if not word then index, behind = rest:match("^%[(%-?%d+)%](.*)$") end
        if not word and rest:find("^%[%*%]") then
            error("get: [*] stands for many values, a document has one each", 0)
        end
        if not (word or index) or behind == "." or not behind:find("^[.%[]") and behind ~= "" then
            error(('get: "%s" is no path'):format(path), 0)
        end
        rest = behind:gsub("^%.", "")
        local inside = not kid and node or node_at(node, kid)
        kid, node = step(inside, word, tonumber(index)), inside
        if not kid then return nil end
    end
    if not kid then return doc end
    return value_of(node, kid)
end)

M.functions = methods

-- ---- metamethods

local meta = getmetatable(base)
local OBJECT_METHODS = { table = true, each = true, get = true }

function meta.__index(doc, key)
    local node = check(doc)
    if type(key) == "number" then
        if node.kind ~= "array" then return nil end
        return value_of(node, kids_of(node)[key])
    elseif type(key) ~= "string" then
        return nil
    end
    local kid = node.kind == "object" and find(node, key)
    if kid then return value_of(node, kid) end
    if node.kind == "object" and not OBJECT_METHODS[key] then return nil end
    return methods[key]
end

local function set_element(node, i, v)
    if type(i) ~= "number" then
        error(('an array has no field "%s"'):format(type(i) == "string" and i or type(i)), 0)
    end
    local kids = kids_of(node)
    check_index(i, #kids + (v ~= nil and 1 or 0), "assignment")
    if v == nil and i ~= #kids then
        error(("only the last element can be removed by assigning nil; use doc:remove(%d)"):format(i), 0)
    end
    local kid = v ~= nil and fresh(nil, v) or nil
    touch(node)
    if kids[i] then let_go(kids[i]) end
    kids[i] = kid
end

local function set_member(node, key, v)
    if type(key) ~= "string" then
        error(("an object's key must be a string, not a %s"):format(type(key)), 0)
    end
    local kids = kids_of(node)
    local old, at = find(node, key)
    if v == nil then
        if not old then return end
        touch(node)
        for i = #kids, 1, -1 do
            if kids[i].key == key then let_go(table.remove(kids, i)) end
        end
        return
    end
    local kid = fresh(key, v)
    touch(node)
    if old then
        let_go(old)
        kid.raw_key = old.raw_key
    end
    kids[at or #kids + 1] = kid
end

meta.__newindex = guarded(function(doc, key, v)
    local node = check(doc)
    check_writable(node)
    if node.kind == "array" then
        set_element(node, key, v)
    elseif node.kind == "object" then
        set_member(node, key, v)
    else
        error("not an object or array", 0)
    end
end)

function meta.__len(doc) return #kids_of(check(doc)) end
function meta.__tostring(doc) return write(check(doc)) end
function meta.__eq(a, b) return nodes[a] ~= nil and nodes[a] == nodes[b] end
meta.__metatable = "claw.document"

-- ---- for the kit

-- A document over a text; nil, message, offset when it is no JSON. readonly: as req.body is; life.over: it died.
function M.parse(text, readonly, life)
    local raw, message, offset = slice.check(text)
    if not raw then return nil, message, offset end
    local state = { readonly = readonly, life = life }
    state.root = new_node(state, nil, raw)
    return wrap(state.root)
end

-- A document over a Lua value.
function M.new(value)
    return M.parse(writer.encode(value, raw_of))
end

function M.is(v)
    return nodes[v] ~= nil
end

-- Has anything of the whole document been changed?
function M.changed(doc)
    return check(doc).state.root.raw == nil
end

-- The JSON text of any value that has one.
function M.encode(v)
    return writer.encode(v, raw_of)
end

return M
