local cidr = require("claw.cidr")

describe("claw.cidr", function()
    local cases = {
        { "192.168.1.0/24", "192.168.1.77", true }, { "192.168.1.0/24", "192.168.2.1", false },
        { "10.0.0.5", "10.0.0.5", true }, { "10.0.0.5", "10.0.0.6", false },
        { "0.0.0.0/0", "8.8.8.8", true }, { "0.0.0.0/0", "::1", false },
        { "10.128.0.0/9", "10.127.255.255", false }, { "10.128.0.0/9", "10.128.0.0", true },
        { "1.2.3.4/31", "1.2.3.5", true }, { "1.2.3.4/31", "1.2.3.6", false },
        { "fd00::/8", "fd12:3456::1", true }, { "fd00::/8", "fe80::1", false },
        { "2001:db8::/33", "2001:db8:7fff::1", true }, { "2001:db8::/33", "2001:db8:8000::1", false },
        { "::1", "0:0:0:0:0:0:0:1", true }, { "::/0", "2001:db8::", true },
        { "10.0.0.0/8", "::ffff:10.1.2.3", true }, { "::ffff:10.0.0.0", "10.0.0.0", true },
        { "fe80::/10", "fe80::1%eth0", true },
    }
    for _, case in ipairs(cases) do
        it(("%s %s %s"):format(case[2], case[3] and "in" or "not in", case[1]), function()
            assert.equal(case[3], cidr.inside(assert(cidr.block(case[1])), case[2]))
        end)
    end

    for _, bad in ipairs({ "", "x", "1.2.3", "1.2.3.4.5", "256.1.1.1", "1.2.3.4/33", "1.2.3.4/", "::1::", "1:2:3",
        "fd00::/129", "1:2:3:4:5:6:7:8:9", ":::", "12345::", "g::" }) do
        it(("refuses %q"):format(bad), function()
            local block, message = cidr.block(bad)
            assert.is_nil(block)
            assert.is_string(message)
        end)
    end

    it("has nothing inside for what is no address", function()
        assert.is_false(cidr.inside(cidr.block("0.0.0.0/0"), "nonsense"))
    end)
end)
