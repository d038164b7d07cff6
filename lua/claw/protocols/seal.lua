-- seal: a provider's secrets (signatures, thinking only it can read) in the fields of another family's dialect.
--
--   family:secret            a signature           family:redacted:secret      thinking that only its provider can read
--
-- A secret of the field's own family has nothing in front. The secrets themselves are base64: they have no colon.

local M = {}

local FAMILY = { anthropic = true, openai = true, gemini = true, bedrock = true, other = true }

-- own: the family whose field it is.
function M.seal(secret, origin, own, redacted)
    if origin == own then return secret end
    return (FAMILY[origin] and origin or "other") .. ":" .. (redacted and "redacted:" or "") .. secret
end

-- The secret, its family, and whether it is redacted thinking.
function M.open(text, own)
    local family, rest = text:match("^(%l+):(.*)$")
    if not family or not FAMILY[family] then return text, own, false end
    local secret = rest:match("^redacted:(.*)$")
    return secret or rest, family, secret ~= nil
end

return M
