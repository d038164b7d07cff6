local core_of = require("openclaw.core")
local document = require("openclaw.document")
local json = require("claw.json")
local request = require("openclaw.request")

local function parse(text)
    return assert(document.parse(text))
end

-- The C document's own cases (tests/unit/script/document_test.c): what it does this one does, byte for byte.
local function c_cases()
    local file = assert(io.open((os.getenv("CLAW_ROOT") or ".") .. "/tests/unit/script/document_test.c"))
    local text = file:read("*a")
    file:close()
    local ESCAPES = { n = "\n", t = "\t", r = "\r", ["0"] = "\0" }
    -- One argument that is made of string literals; nil when it is something else.
    local function literal(at)
        local out = {}
        while true do
            at = text:match("^%s*()", at)
            if text:sub(at, at) ~= '"' then break end
            at = at + 1
            local from = at
            while text:sub(at, at) ~= '"' do at = at + (text:sub(at, at) == "\\" and 2 or 1) end
                local inside = text:sub(from, at - 1):gsub("\\x(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)
            out[#out + 1] = (inside:gsub("\\(.)", function(c) return ESCAPES[c] or c end))
            at = at + 1
        end
        return #out > 0 and table.concat(out) or nil, at
    end
    local cases = {}
    for kind, at in text:gmatch("\n    (%l+)%(()") do
        if kind == "edit" or kind == "refuse" then
            local case = { kind = kind, line = select(2, text:sub(1, at):gsub("\n", "")) + 1 }
            for i = 1, 3 do
                case[i], at = literal(at)
                at = text:match("^%s*,()", at) or at
            end
            -- What only memory that can run out does is C's alone.
            if case[1] and case[2] and case[3] ~= "memory" then cases[#cases + 1] = case end
        end
    end
    return cases
end

local function run(case)
    local req = request.new({ body = case[1] })
    local r = request.record(req)
    local made = core_of.new()
    local doc = made.body(r)
    local core = { null = json.null, is_doc = document.is, changed = document.changed, doc = document.functions,
        body = function() return doc end }
    local chunk = assert(loadstring("local core, doc, r, req = ... do " .. case[2] .. " end", "=case"))
    local ok, message = pcall(chunk, core, doc, r, req)
    return ok, message, doc
end

describe("openclaw.document", function()
    local cases = c_cases()

    it("finds the C document's cases", function()
        assert.is_true(#cases > 60)
    end)

    for _, case in ipairs(cases) do
        it(("does as document_test.c:%d"):format(case.line), function()
            local ok, message, doc = run(case)
            if case.kind == "refuse" then
                assert.is_false(ok)
                assert.truthy(message:find(case[3], 1, true), message)
            else
                assert.is_true(ok, message)
                if case[3] then assert.equal(case[3], tostring(doc)) end
            end
        end)
    end

    it("names the line that asked for the impossible", function()
        local chunk = assert(loadstring("local doc = ...\n\ndoc[5] = 1", "@policies/x.lua"))
        local _, message = pcall(chunk, parse("[1]"))
        assert.equal("policies/x.lua:3: assignment: there is no place 5 in an array of 2", message)
        chunk = assert(loadstring("local doc = ...\ndoc:append(nil)", "@policies/x.lua"))
        _, message = pcall(chunk, parse("[1]"))
        assert.equal("policies/x.lua:2: insert: nil is no JSON value (null is claw.json.null)", message)
    end)

    it("keeps a child the same, whoever asks for it", function()
        local doc = parse('{"a":{"b":[1]}}')
        local list = doc.a.b
        doc.a.c = 2
        list:append(3)
        assert.equal('{"a":{"b":[1,3],"c":2}}', tostring(doc))
        assert.is_true(doc.a.b == list)
        doc.a.b = nil
        list:append(4)
        assert.equal("[1,3,4]", tostring(list))
        assert.equal('{"a":{"c":2}}', tostring(doc))
    end)

    it("is read-only where it is the original", function()
        local doc = document.parse('{"a":[1]}', true)
        assert.has_error(function() doc.a = 1 end)
        assert.has_error(function() doc.a:append(1) end)
        assert.equal(1, doc.a[1])
        assert.is_false(document.changed(doc))
    end)

    it("cannot be taken apart", function()
        local doc = parse("{}")
        assert.equal("userdata", type(doc))
        assert.equal("claw.document", getmetatable(doc))
    end)

    local bad = {
        { "", "empty text", 0 }, { " \n", "empty text", 2 }, { "{", "unexpected end of text", 1 }, { "[1,]", "unexpected character", 3 },
        { '{"a" 1}', "unexpected character", 5 }, { "[1] 2", "more text after the value", 4 }, { "\239\187\191{}", "byte order mark", 0 },
        { '"\\x"', "bad escape", 1 }, { '"a\nb"', "control character in a string", 2 }, { '"\255"', "not valid UTF-8", 1 },
        { '"\237\160\128"', "not valid UTF-8", 1 }, { "01", "more text after the value", 1 }, { "1.", "unexpected end of text", 2 },
        { "-", "unexpected end of text", 1 }, { "tru", "unexpected end of text", 3 }, { "nulk", "unexpected character", 3 },
        { '{"model":1,"mod\\u0065l":2}', 'duplicate key "model"' }, { ("["):rep(513), "nested too deeply" },
        { '{"stream":1,"stream":2}', 'duplicate key "stream"' }, { '"\\u12"', "bad escape", 1 }, { "[1 2]", "unexpected character", 3 },
    }
    for _, case in ipairs(bad) do
        it("refuses " .. case[1]:sub(1, 20):gsub("%c", "."), function()
            local doc, message, offset = document.parse(case[1])
            assert.is_nil(doc)
            assert.equal(case[2], message)
            if case[3] then assert.equal(case[3], offset) end
        end)
    end

    it("reads what is odd and right", function()
        for text, expected in pairs({ ['["\\ud83d\\ude00"]'] = "\240\159\152\128", ['["\\ud83d"]'] = "\239\191\189", ['["\\/\127"]'] = "/\127",
            ["[-0.5e-1]"] = -0.05, ["[1E2]"] = 100 }) do
            assert.equal(expected, parse(text)[1])
        end
        assert.equal(2, parse('{"a":{"model":1,"model":2}}').a.model)
        assert.is_not_nil(document.parse(("["):rep(512) .. ("]"):rep(512)))
    end)

    -- Edits by chance, of a document and of the table it was made from: both say the same in the end, and what was not
    -- touched keeps its bytes.
    it("does with any edits what a table does", function()
        local random = core_of.random(7)
        local function pick(n) return math.floor(random() * n) + 1 end
        local function value(depth)
            local kind = pick(depth > 0 and 6 or 4)
            if kind == 1 then return pick(1000) elseif kind == 2 then return "t" .. pick(9) .. "\n\"" end
            if kind == 3 then return random() < 0.5 elseif kind == 4 then return json.null end
            local out = kind == 5 and json.array() or {}
            for i = 1, pick(4) do out[kind == 5 and i or "k" .. pick(5)] = value(depth - 1) end
            return out
        end
        local function edit(doc, t)
            local is_list = document.functions.type(doc) == "array"
            local key = is_list and pick(#t + 1) or "k" .. pick(5)
            if type(t[key]) == "table" and random() < 0.7 then return edit(doc[key], t[key]) end
            local what = pick(3)
            if what == 1 and is_list and t[key] ~= nil then
                doc:remove(key)
                table.remove(t, key)
            elseif what == 2 and is_list then
                local v = value(1)
                doc:insert(key, v)
                table.insert(t, key, v)
            elseif what == 1 and not is_list then
                doc[key], t[key] = nil, nil
            else
                local v = value(2)
                doc[key], t[key] = v, json.decode(json.encode(v))
            end
        end
        for _ = 1, 200 do
            local t = {}
            for i = 1, 5 do t["k" .. i] = value(3) end
            local text = json.encode(t):gsub("}$", ',"kept": [ 1.0e0 , "\\u0041" ]}')
            local doc = parse(text)
            local plain = document.functions.table(doc)
            for _ = 1, pick(12) do edit(doc, plain) end
            plain.kept = nil
            local out = tostring(doc)
            assert.truthy(out:find('"kept":[ 1.0e0 , "\\u0041" ]', 1, true) or not document.changed(doc) and out == text)
            doc.kept = nil
            assert.equal(json.encode(plain), json.encode(document.functions.table(doc)))
        end
    end)
end)
