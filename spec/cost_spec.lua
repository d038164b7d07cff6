local cost = require("claw.cost")

describe("claw.cost", function()
    local price = { input = 30000000, output = 60000000, cached_input = 3000000 }

    local cases = {
        -- price, input, cached, output, micro-dollars
        { price, 1000, 0, 500, 60000 }, { price, 1000, nil, 500, 60000 }, { price, 1000, 400, 500, 49200 },
        { price, 1000, 5000, 0, 3000 }, { price, 0, 0, 0, 0 }, { price, nil, nil, 10, 600 },
        { { input = 500000 }, 1, 0, 0, 1 }, { { input = 499999 }, 1, 0, 0, 0 }, { { input = 100000 }, 14, 0, 0, 1 },
        { { input = 1000000 }, 10, 10, 5, 10 }, { { input = 1, output = 0 }, 1, 0, 0, 0 },
        { { input = 1000000, request_micros = 7 }, 2, 0, 0, 9 }, { { request_micros = 7 }, nil, nil, nil, 7 },
        { { request_micros = 7 }, 5, 0, 5, 7 },
        { price, nil, nil, nil, nil }, { nil, 10, 0, 10, nil }, { {}, 10, 0, 10, nil },
        { { input = 75000000, output = 150000000 }, 1000000, 0, 200000, 105000000 },
    }
    for i, case in ipairs(cases) do
        it("charge " .. i, function() assert.equal(case[5], cost.charge(case[1], case[2], case[3], case[4])) end)
    end

    it("takes the model's price over the upstream's over the list's, key by key", function()
        local p = cost.price({ cost_per_million_input_tokens = 2.5 }, { output = 10 },
            { cost_per_million_output_tokens = 99, cost_per_request = 0.000002 })
        assert.same({ input = 2500000, output = 10, request_micros = 2 }, p)
        assert.is_nil(cost.price(nil, nil, nil))
        assert.is_nil(cost.price({ context_window = 5 }, {}, nil))
        assert.same({ input = 150000 }, cost.price({ cost_per_million_input_tokens = 0.15 }, nil, nil))
        assert.same({ input = 0 }, cost.price({ cost_per_million_input_tokens = 0 }, { input = 5 }, nil))
    end)

    it("estimates fractions", function()
        assert.equal(0.5, cost.estimate({ input = 100000 }, 5, 10))
        assert.equal(1.5 + 3, cost.estimate({ input = 100000, output = 100000, request_micros = 3 }, 5, 10))
        assert.is_nil(cost.estimate(nil, 1, 1))
    end)
end)
