-- witness: looks on while hooks run and tells what each was given, decided and changed, as lines.

local admit = require("claw.admit")
local diff = require("claw.diff")
local json = require("claw.json")

local M = {}

local function names_of(list)
    local out = {}
    for i, c in ipairs(list) do
        if type(c) == "table" then
            out[i] = tostring(c.name) .. (c.model and " as " .. tostring(c.model) or "")
        else
            out[i] = tostring(c)
        end
    end
    return #out > 0 and table.concat(out, ", ") or "nobody"
end

local function order_of(answer, list)
    if type(answer) == "table" then return names_of(answer) end
    local out = { answer }
    for _, c in ipairs(list) do
        if c.name ~= answer then out[#out + 1] = c end
    end
    return names_of(out)
end

local function hedge_of(answer)
    if type(answer) ~= "table" or answer.hedge == nil then return "" end
    return answer.hedge == false and ", no hedge" or ", hedge after " .. tostring(answer.hedge)
end

local function text_of(body)
    if type(body) ~= "table" then return body ~= nil and tostring(body) or nil end
    local ok, text = pcall(json.encode, body)
    return ok and text or "(no JSON)"
end

-- The lines of what changed between two sets of fields for the upstream: name -> value, false for a removed one.
local function header_lines(out, old, new)
    local names = {}
    for name in pairs(new) do names[#names + 1] = name end
    table.sort(names)
    for _, name in ipairs(names) do
        local v = new[name]
        if v ~= old[name] then
            out[#out + 1] = v and ("header %s: %s"):format(name, diff.cut(v)) or ("header %s: removed"):format(name)
        end
    end
end

local function outgoing(core, r)
    local list, path, commit = core.outgoing(r)
    local fields = {}
    for i = 1, #list, 2 do fields[list[i]:lower()] = list[i + 1] end
    return fields, path, commit
end

local TELLS = {}

function TELLS.admit(_, note, answer)
    if answer == nil then return "lets it pass" end
    local said = admit.read(answer, note.policy.name)
    if said.answered then
        note.self.answered = said
        return ("answers it: %d: %s"):format(said.status, diff.cut(tostring(answer.say or text_of(answer.answer))))
    end
    note.self.denied = said
    return ("denies it: %s %s: %s"):format(tostring(said.status), tostring(said.code), tostring(said.message))
end

function TELLS.route(_, note, answer)
    if answer == nil then return "leaves the order: " .. names_of(note.list) end
    local before, after = names_of(note.list), order_of(answer, note.list)
    if before == after then return "keeps the order: " .. after .. hedge_of(answer) end
    return ("order %s (before: %s)%s"):format(after, before, hedge_of(answer))
end

function TELLS.choose(_, note, answer)
    if answer == nil then return "chooses nobody" end
    return ("chooses %s (of %s)%s"):format(order_of(answer, note.list), names_of(note.list), hedge_of(answer))
end

function TELLS.request(core, note, answer)
    local lines = diff.texts(note.text, text_of(answer == nil and note.body or answer))
    local fields, path, commit = outgoing(core, note.self.r)
    header_lines(lines, note.fields, fields)
    if path ~= note.path then lines[#lines + 1] = "path: " .. tostring(path) end
    if commit ~= note.commit then lines[#lines + 1] = "commit: " .. tostring(commit) end
    note.lines = lines
    return #lines > 0 and "changes" or "changes nothing"
end

local function title(note)
    return ("  %s%s, %s: "):format(note.hook, note.self.at and " at " .. note.self.at or "", note.policy.name)
end

-- hooks.witness for one request r. `out` gets the lines; `at` (set by its owner) names the upstream of request hooks;
-- `denied` is set by a denial, `answered` by an answer.
function M.new(core, r, out)
    local self = { r = r, out = out, now = nil }

    function self.begin(policy, hook, _, b)
        local note = { self = self, policy = policy, hook = hook, line = #out + 1 }
        out[note.line] = title(note)
        if hook == "request" then
            note.body, note.text = b, text_of(b)
            note.fields, note.path, note.commit = outgoing(core, r)
        elseif hook == "route" or hook == "choose" then
            note.list = hook == "route" and b or _
            note.list = { unpack(note.list) }
        end
        self.now, note.from = note, core.now_us()
        return note
    end

    function self.ended(note, ok, answer)
        local us = core.now_us() - note.from
        self.now = nil
        local tell, text = TELLS[note.hook], "failed"
        if ok and tell then
            local fine, said = pcall(tell, core, note, answer)
            text = fine and said or "answers what is no verdict"
        end
        out[note.line] = ("%s%s (%d us)"):format(out[note.line], text, us)
        for _, line in ipairs(note.lines or {}) do out[#out + 1] = "    " .. line end
    end

    function self.failed(policy, failure)
        out[#out + 1] = ("    error: %s%s"):format(failure.message, policy.skip and " (skipped)" or "")
    end

    -- What a policy logs, or would have done.
    function self.say(text)
        out[#out + 1] = "    " .. text
    end

    function self.log(level, message, fields)
        local policy, rest = fields and fields.policy, {}
        for key, v in pairs(fields or {}) do
            if key ~= "policy" then rest[key] = v end
        end
        local ok, shown = pcall(json.encode, rest)
        self.say(("%s says: %s: %s%s"):format(policy or "claw", level, message,
            next(rest) ~= nil and " " .. diff.cut(ok and shown or "(fields that are no JSON)", 4 * diff.BYTES) or ""))
    end
    return self
end

return M
