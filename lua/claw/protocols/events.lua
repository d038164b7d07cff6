-- events: what a reader has made of its stream so far, for protocols whose parts follow each other (cohere_chat,
-- ollama_chat, bedrock_converse, openai_completions). It keeps the vocabulary's order: start first, one part open at a
-- time, every part closed before the stop, the end or an error last. A part is closed when the next begins, so what
-- comes late for it (a citation, a signature) still finds it.

local errors = require("claw.protocols.errors")

local M = {}

local NOTHING = {}
M.UNREADABLE = { status = 502, kind = "server", message = "the upstream sent an event that is no JSON" }
M.CUT = { status = 502, kind = "server", message = "the upstream's stream ended before its answer did" }

local Events = {}
Events.__index = Events

function M.new(cx)
    return setmetatable({ cx = cx, out = {}, parts = 0 }, Events)
end

-- Adds an event of the vocabulary.
function Events:put(event)
    self.out[#self.out + 1] = event
end

-- The answer begins, if it has not. head (nil: all unknown): { id, model, created, usage }. Without an id the writer
-- gives one of its dialect's.
function Events:start(head)
    if self.begun then return end
    self.begun = true
    head = head or NOTHING
    self:put({ on = "start", id = head.id, model = head.model,
        created = head.created or self.cx.now, usage = head.usage })
end

function Events:close()
    if not self.open then return end
    self:put({ on = "part_end", index = self.parts - 1 })
    self.open = nil
end

-- A part begins; the one before it is over.
function Events:begin(part)
    self:start()
    self:close()
    self:put({ on = "part", index = self.parts, part = part })
    self.parts = self.parts + 1
    self.open = part.kind
end

-- More text of a part of this kind: of the open one, or of a new one.
function Events:more(kind, text)
    if text == "" then return end
    if self.open ~= kind then self:begin({ kind = kind }) end
    self:put({ on = "text", index = self.parts - 1, text = text })
end

-- More of the open call's input.
function Events:input(text)
    if text == "" or self.open ~= "call" then return end
    self:put({ on = "input", index = self.parts - 1, text = text })
end

function Events:signature(signature, origin)
    if self.open ~= "thinking" then self:begin({ kind = "thinking" }) end
    self:put({ on = "signature", index = self.parts - 1, signature = signature, origin = origin })
end

-- A citation of the open text; one that comes when none is open is lost.
function Events:cite(citation)
    if self.open ~= "text" then return end
    self:put({ on = "citation", index = self.parts - 1, citation = citation })
end

-- usage: nil says nothing.
function Events:usage(usage)
    if not usage then return end
    self:start()
    self:put({ on = "usage", usage = usage })
end

function Events:stop(stop, stop_text)
    if self.stopped then return end
    if stop == "error" then return self:fail(errors.unfinished()) end
    self.stopped = true
    self:start()
    self:close()
    self:put({ on = "stop", stop = stop, stop_text = stop_text })
end

function Events:fail(err)
    self.over = true
    self:put({ on = "error", err = err })
end

-- The answer is whole: the protocol said so, or its stream is over and had its stop. Else it was cut.
function Events:finish()
    if self.over then return end
    if not self.stopped then return self:fail(M.CUT) end
    self.over = true
    self:put({ on = "end" })
end

-- What was added since it was last asked.
function Events:take()
    local out = self.out
    if not out[1] then return NOTHING end
    self.out = {}
    return out
end

-- A reader of events whose data is JSON: read(decoded, type, data) is called for each but [DONE], where
-- protocols end.
function Events:reader(read)
    return function(event)
        if self.over then return NOTHING end
        if not event then
            self:finish()
            return self:take()
        end
        local data = event.data
        if type(data) ~= "string" or not data:find("%S") then return NOTHING end
        local e = self.cx.decode(data)
        if type(e) ~= "table" then
            if data:find("^%s*%[DONE%]%s*$") then self:finish() else self:fail(M.UNREADABLE) end
        else
            read(e, event.type, data)
        end
        return self:take()
    end
end

return M
