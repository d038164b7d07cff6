-- experiment: the line of the log says which experiment a request belongs to, so that lines can be grouped by it.
local P = { name = "experiment", api = 1 }

function P.log(req)
    return { experiment = req.client.headers["x-experiment"] or "none" }
end

return P
