-- auth_service: a stand-in for the service that external_auth asks. It answers /check, and knows one token.
local P = { name = "auth_service", api = 1 }

function P.admit(req)
    if req.path ~= "/check" then return nil end
    local good = req.client.headers.authorization == "Bearer good"
    return { answer = { allowed = good }, status = good and 200 or 403 }
end

return P
