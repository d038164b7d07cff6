-- cohere_chat: Cohere's /v2/chat. Upstreams only.
--
-- messages (turns, written) → outgoing → content (what answers say, read) → answer, error → reader.

local answer = require("claw.protocols.cohere_chat.answer")
local errors = require("claw.protocols.cohere_chat.error")
local outgoing = require("claw.protocols.cohere_chat.outgoing")
local reader = require("claw.protocols.cohere_chat.reader")

return {
    write_request = outgoing.write,
    read_answer = answer.read,
    reader = reader.new,
    read_error = errors.read,
}
