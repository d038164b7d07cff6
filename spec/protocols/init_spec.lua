local protocols = require("claw.protocols")

describe("claw.protocols", function()
    it("has none of a name that no file has", function()
        assert.is_nil(protocols.get("esperanto"))
        assert.is_nil(protocols.get(nil))
        assert.is_nil(protocols.get("esperanto"))
    end)

    it("gives a module with all its functions", function()
        package.preload["claw.protocols.sample"] = function() return { read_request = print } end
        assert.equal(print, protocols.get("sample").read_request)
        package.preload["claw.protocols.sample"], package.loaded["claw.protocols.sample"] = nil, nil
    end)

    it("does not hide a module's own mistake", function()
        package.preload["claw.protocols.broken"] = function() error("broken on purpose") end
        assert.has_error(function() protocols.get("broken") end)
        package.preload["claw.protocols.broken"] = nil
    end)
end)
