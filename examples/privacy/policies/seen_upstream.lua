-- seen_upstream: for this example only. It stands behind pii_redaction and adds to the answer what the provider saw.
local P = { name = "seen_upstream", api = 1 }

function P.request(req, body)
    req.ctx.seen = claw.doc.get(body, "messages[-1].content")
end

function P.response(req, body)
    body.seen_upstream = req.ctx.seen
end

return P
