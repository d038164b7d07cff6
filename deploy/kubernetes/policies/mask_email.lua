-- E-mail addresses in what users write do not leave for a provider.
local P = { name = "mask_email", api = 1 }
function P.request(_, body)
    if not (body and body.messages) then return end
    for _, message in body.messages:each() do
        if type(message.content) == "string" then
            message.content = message.content:gsub("[%w._-]+@[%w.-]+", "<email>")
        end
    end
end
return P
