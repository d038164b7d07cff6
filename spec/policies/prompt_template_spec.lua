local testing = require("openclaw.testing")

local p = testing.load("policies/prompt_template.lua", { conf = { policies = { settings = { prompt_template = { templates = {
    support = { { role = "system", content = "You help with {{product}}." }, { role = "user", content = "{{ question }}" } },
} } } } } })

local function request(body)
    return testing.request({ body = body })
end

describe("policies/prompt_template", function()
    it("fills in", function()
        local body = { model = "m", template = "support", variables = { product = "Anvil", question = "100% {{heavy}}?" } }
        local result = p:run("request", request(body))
        assert.same({ model = "m", messages = { { role = "system", content = "You help with Anvil." },
            { role = "user", content = "100% {{heavy}}?" } } }, result.json)
    end)

    it("puts the request's own messages behind", function()
        local result = p:run("request", request({ template = "support", variables = { product = 1, question = 2 },
            messages = { { role = "user", content = "more" } } }))
        assert.equal("more", result.json.messages[3].content)
    end)

    it("refuses what cannot be filled", function()
        assert.same({ status = 400, code = "bad_template", message = 'The template "support" wants a value for "product"' },
            p:run("admit", request({ template = "support" })).denied)
        assert.equal('There is no template "x"', p:run("admit", request({ template = "x" })).denied.message)
        assert.equal("bad_template", p:run("admit", request({ template = testing.null })).denied.code)
    end)

    it("leaves others alone", function()
        assert.is_nil(p:run("admit", request({ messages = {} })).denied)
        assert.is_nil(p:run("admit", request({ template = "support", variables = { product = 1, question = 2 } })).denied)
        assert.is_nil(p:run("admit", request(nil)).denied)
        assert.is_false(p:run("request", request({ messages = {} })).changed)
    end)
end)
