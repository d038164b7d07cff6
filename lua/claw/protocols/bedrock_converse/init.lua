-- bedrock_converse: Amazon Bedrock's Converse and ConverseStream. Upstreams only.
--
-- models (what of it a model knows) → blocks, messages (turns, written) → outgoing → content (read) → answer, error →
-- reader.

local answer = require("claw.protocols.bedrock_converse.answer")
local errors = require("claw.protocols.bedrock_converse.error")
local outgoing = require("claw.protocols.bedrock_converse.outgoing")
local reader = require("claw.protocols.bedrock_converse.reader")

return {
    write_request = outgoing.write,
    read_answer = answer.read,
    reader = reader.new,
    read_error = errors.read,
}
