-- gemini: Google's generateContent and streamGenerateContent, at Gemini and at Vertex. See README.md, a folder up.
--
-- Its body names neither the model nor whether it is streamed: the path does, so a request that is read has neither.
-- Quirks it asks a provider's table for:
--   call_ids      false: calls have no ids there; not given: from Gemini 3 on they have
--   remote_files  true: it fetches http URLs of images and documents by itself

local answer = require("claw.protocols.gemini.answer")
local errors = require("claw.protocols.gemini.error")
local outgoing = require("claw.protocols.gemini.outgoing")
local reader = require("claw.protocols.gemini.reader")
local request = require("claw.protocols.gemini.request")
local wording = require("claw.protocols.gemini.wording")
local writer = require("claw.protocols.gemini.writer")

return {
    read_request = request.read,
    wording = wording,
    write_request = outgoing.write,
    read_answer = answer.read,
    write_answer = answer.write,
    reader = reader.new,
    writer = writer.new,
    read_error = errors.read,
    write_error = errors.write,
    write_error_event = errors.write_event,
}
