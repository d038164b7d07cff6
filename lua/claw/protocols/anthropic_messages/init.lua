-- anthropic_messages: Anthropic's /v1/messages.
--
-- content (blocks) → request (read), models, messages, outgoing (written) → answer, error → reader, writer (streams).

local answer = require("claw.protocols.anthropic_messages.answer")
local errors = require("claw.protocols.anthropic_messages.error")
local outgoing = require("claw.protocols.anthropic_messages.outgoing")
local reader = require("claw.protocols.anthropic_messages.reader")
local request = require("claw.protocols.anthropic_messages.request")
local writer = require("claw.protocols.anthropic_messages.writer")

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
