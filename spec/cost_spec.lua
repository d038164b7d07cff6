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

    it("charges for what is written to a cache, and more for a long prompt", function()
        local p = { input = 3000000, output = 15000000, cached_input = 300000, cache_write = 3750000, long_above = 1000,
            long_input = 6000000, long_output = 22500000, long_cached = 600000 }
        assert.equal(100 * 3 + 10 * 15, cost.charge(p, 100, nil, 10))
        assert.equal(300 + 40 * 0.3 + 15 * 10, cost.charge(p, 140, 40, 10, 0))
        assert.equal(300 + 12 + 40 * 3.75 + 150, cost.charge(p, 180, 40, 10, 40))
        assert.equal(1000 * 3, cost.charge(p, 1000, 0, 0))
        assert.equal(1001 * 6 + 22.5 * 2, cost.charge(p, 1001, 0, 2))
        assert.equal(961 * 6 + 40 * 0.6 + 1000 * 7.5, cost.charge(p, 2001, 40, 0, 1000))
        assert.equal(100 * 3.75, cost.charge(p, 100, 0, 0, 5000))
        assert.equal(100 * 3, cost.charge({ input = 3000000 }, 100, 0, 0, 50))
    end)

    it("takes the catalog's price only when nobody else has one", function()
        local known = { cost_per_million_input_tokens = 1.25, cost_per_million_output_tokens = 10,
            cost_per_million_cached_input_tokens = 0.125, long = { above = 200000, cost_per_million_input_tokens = 2.5,
                cost_per_million_output_tokens = 15, cost_per_million_cached_input_tokens = 0.25 } }
        assert.same({ input = 1250000, output = 10000000, cached_input = 125000, long_above = 200000,
            long_input = 2500000, long_output = 15000000, long_cached = 250000 }, cost.price(nil, nil, nil, known))
        assert.same({ input = 7 }, cost.price(nil, { input = 7 }, nil, known))
        assert.same({ output = 2000000 }, cost.price(nil, {}, { cost_per_million_output_tokens = 2 }, known))
        assert.equal(5, cost.price(nil, { request_micros = 5 }, nil, known).request_micros)
    end)

    it("estimates fractions", function()
        assert.equal(0.5, cost.estimate({ input = 100000 }, 5, 10))
        assert.equal(1.5 + 3, cost.estimate({ input = 100000, output = 100000, request_micros = 3 }, 5, 10))
        assert.is_nil(cost.estimate(nil, 1, 1))
    end)
end)
