-- first_available: the first in the order of the file; the others wait behind it.

local order = require("claw.route.order")

return function()
    return function(candidates)
        return order.turns(candidates)[1]
    end
end
