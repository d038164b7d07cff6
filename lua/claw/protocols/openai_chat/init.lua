-- openai_chat: OpenAI's /v1/chat/completions, and all who speak it.
--
-- content, spelling (what messages say: read, written) → request, outgoing → answer, error → reader (mould), writer.

local answer = require("claw.protocols.openai_chat.answer")
local errors = require("claw.protocols.openai_chat.error")
local outgoing = require("claw.protocols.openai_chat.outgoing")
local reader = require("claw.protocols.openai_chat.reader")
local request = require("claw.protocols.openai_chat.request")
local writer = require("claw.protocols.openai_chat.writer")

return {
    read_request = request.read,
    wording = request.wording,
    write_request = outgoing.write,
    read_answer = answer.read,
    write_answer = answer.write,
    reader = reader.new,
    writer = writer.new,
    read_error = errors.read,
    write_error = errors.write,
    write_error_event = errors.write_event,
}
