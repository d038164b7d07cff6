local claw = require("claw")
local fake_core = require("support.fake_core")
local hooks = require("claw.hooks")
local phases = require("claw.phases")

-- A core, and a policy's services over it.
local function services(overrides)
    local core = fake_core.new(overrides)
    return claw.services(core, {}, { known = { index = 3 } })("mine"), core
end

-- Run fn as the hook on a coroutine; each yield is answered by the next of `answers` (a list of values).
local function run(hook, fn, answers)
    local core, asked = fake_core.new(), {}
    local task = coroutine.create(function()
        return hooks.call(core, { policy = { name = "mine", file = "policies/mine.lua" }, fn = fn }, hook,
            function() return nil end)
    end)
    local out = { coroutine.resume(task) }
    local i = 0
    while coroutine.status(task) == "suspended" do
        asked[#asked + 1] = { unpack(out, 2, table.maxn(out)) }
        phases.now = "event" -- others ran meanwhile
        i = i + 1
        out = { coroutine.resume(task, unpack((answers or {})[i] or {}, 1, 3)) }
    end
    phases.now = nil
    if not out[1] then error(out[2].message, 0) end
    return out[2], asked
end

describe("claw.time.sleep", function()
    local c = services()

    it("suspends, and sets the hook again", function()
        local now, asked = run("admit", function()
            c.time.sleep(5)
            return phases.now
        end)
        assert.equal("admit", now)
        assert.same({ { "sleep", 5 } }, asked)
    end)

    it("wants milliseconds", function()
        for _, ms in ipairs({ -1, 600001, "5", 0 / 0 }) do
            assert.has_error(function() run("admit", function() c.time.sleep(ms) end) end,
                "claw.time.sleep: wants milliseconds from 0 to 600000")
        end
    end)
end)

describe("claw.task", function()
    it("gives what the function returned", function()
        local c = services()
        local a, asked = run("request", function()
            local task = c.task.spawn(function(x, y) return phases.now .. x, y, nil end, "!", 2)
            return { c.task.wait(task) }
        end)
        assert.same({ "request!", 2 }, a)
        assert.same({}, asked)
    end)

    it("joins those that wait", function()
        local c, core = services()
        local out, asked = run("admit", function()
            local slow = c.task.spawn(function()
                c.time.sleep(10)
                return "slow"
            end)
            local quick = c.task.spawn(function() return "quick" end)
            local broken = c.task.spawn(function() error("no", 0) end)
            core.join = function(ms)
                assert.equal(600000, ms)
                assert(coroutine.resume(core.tasks[1]))
            end
            local a, b, d = c.task.wait(slow, quick, broken)
            return { a, b, d == nil, { c.task.wait(broken) }, phases.now }
        end)
        assert.same({ "slow", "quick", true, { nil, "no", "EPOLICY" }, "admit" }, out)
        assert.same({}, asked)
        assert.equal("a task of a policy failed", core.logged[1].message)
        assert.equal("mine", core.logged[1].fields.policy)
    end)

    it("tells tasks that are lost, too slow, or the caller itself", function()
        local now = 0
        local c, core = services({ now_ms = function() return now end })
        local out = run("admit", function()
            local task = c.task.spawn(function() c.time.sleep(10) end)
            core.join = function() now = now + 600000 end
            local late = { c.task.wait(task) }
            core.alive = function() return true, true end
            local itself = { c.task.wait(task) }
            core.alive = function() return false end
            return { late[3], itself[3], (select(3, c.task.wait(task))) }
        end)
        assert.same({ "ETIMEOUT", "EINVAL", "EPOLICY" }, out)
    end)

    it("refuses what is no function and no handle", function()
        local c = services()
        for _, wrong in ipairs({ function() c.task.spawn(5) end, function() c.task.wait() end, function() c.task.wait({}) end,
            function() c.task.background("x") end }) do
            assert.has_error(function() run("admit", wrong) end)
        end
    end)

    it("says when there are too many", function()
        local c = services({ spawn = function() return nil, "full", "EBUSY" end,
            background = function() return nil, "full", "EBUSY" end })
        local out = run("admit", function() return { { c.task.spawn(print) }, { c.task.background(print) } } end)
        assert.same({ { nil, "full", "EBUSY" }, { nil, "full", "EBUSY" } }, out)
    end)
end)

describe("claw.http.fetch", function()
    local c = services()
    local function asks(...)
        local args = { ... }
        local _, asked = run("admit", function() return c.http.fetch(unpack(args)) end, { { { status = 200 } } })
        return asked[1]
    end

    it("fills in what is not said", function()
        local a = asks("http://x/")
        assert.same({ "fetch", "http://x/", nil, "", "GET", {}, nil, 5000, 1024 * 1024 }, a)
        a = asks({ url = "http://x/", body = "text", headers = { a = "b", n = 5 }, timeout_ms = 7, max_body_kb = 2 })
        assert.same({ "POST", "text", 7, 2048 }, { a[5], a[7], a[8], a[9] })
        assert.equal(4, #a[6])
        a = asks("http://x/", { method = "PUT", body = { a = 1 } })
        assert.same({ "PUT", { "content-type", "application/json" }, '{"a":1}' }, { a[5], a[6], a[7] })
        a = asks({ url = "http://x/", body = { a = 1 }, headers = { ["Content-Type"] = "text/x" } })
        assert.same({ "Content-Type", "text/x" }, a[6])
        a = asks({ upstream = "known", path = "/p" })
        assert.same({ 3, "/p" }, { a[3], a[4] })
    end)

    it("gives the answer, or nil with message and code", function()
        assert.equal(200, (run("admit", function() return c.http.fetch("http://x/") end, { { { status = 200 } } })).status)
        local out = run("admit", function() return { c.http.fetch("http://x/") } end, { { nil, "late", "ETIMEOUT" } })
        assert.same({ nil, "late", "ETIMEOUT" }, out)
    end)

    it("stops at what is too much", function()
        local many, looked = {}, 0
        for i = 1, 101 do many["x-" .. i] = "y" end
        local ok, message = pcall(run, "admit", function() c.http.fetch({ url = "x", headers = many }) end)
        assert.truthy(not ok and message:find("headers: more than 100", 1, true), message)
        local wide = { 1 }
        for _ = 1, 60 do wide = { wide, wide } end
        local stopped = services({ check = function()
            looked = looked + 1
            error("stopped", 0)
        end })
        ok, message = pcall(run, "admit", function() stopped.http.fetch({ url = "x", body = wide }) end)
        assert.truthy(not ok and message:find("stopped", 1, true) and looked == 1, message)
    end)

    it("tells mistakes", function()
        for _, case in ipairs({
            { {}, "a url or an upstream" }, { { url = "x", upstream = "known" }, "a url or an upstream" },
            { { upstream = "unknown" }, "there is no upstream unknown" }, { { upstream = "known", path = "p" }, "begins with /" },
            { { url = 5 }, "wants a text" }, { { url = "x", path = "/" }, "goes with upstream" }, { { url = "x", headers = 5 }, "a table" },
            { { url = "x", headers = { 1 } }, "names and texts" }, { { url = "x", body = 5 }, "body: wants" },
            { { url = "x", body = { print } }, "body: " }, { { url = "x", method = "get" }, "method: wants" },
            { { url = "x", timeout_ms = 0 }, "timeout_ms" }, { { url = "x", max_body_kb = 1e9 }, "max_body_kb" },
            { { url = "x", metod = "GET" }, 'did you mean "method"' },
        }) do
            local ok, message = pcall(run, "admit", function() c.http.fetch(case[1]) end)
            assert.is_false(ok)
            assert.truthy(message:find("claw.http.fetch: ", 1, true) and message:find(case[2], 1, true), message)
        end
        assert.has_error(function()
            run("admit", function() c.http.fetch("http://x/") end, { { nil, "no URL", "EINVAL" } })
        end)
    end)
end)

-- ---- the matrix: every service in every hook, from the table

local function at(root, name)
    local v = root
    for word in name:gmatch("[^.]+") do
        if word ~= "claw" then v = v[word] end
    end
    return v
end

-- Calls that would go through, for the services that look where they are called.
local GOOD = {
    ["claw.time.sleep"] = { 1 }, ["claw.http.fetch"] = { "http://x/" }, ["claw.task.spawn"] = { function() end },
    ["claw.task.background"] = { function() end }, ["claw.redis.call"] = { "PING" }, ["claw.redis.script"] = { "return 1" },
    ["claw.env"] = { "HOME" }, ["claw.metrics.count"] = { "x" }, ["claw.metrics.gauge"] = { "x", 1 },
}

describe("every service in every hook", function()
    local places = { false, phases.BACKGROUND, unpack(phases.names) }
    for _, service in ipairs(phases.services) do
        for _, place in ipairs(places) do
            local allowed = not service.allowed or place and service.allowed[place] or false
            it(("%s in %s: %s"):format(service.name, place or "a file that loads", allowed and "yes" or "no"), function()
                local c = services()
                local arguments = GOOD[service.name] or {}
                if service.name == "claw.task.wait" then
                    phases.now = "admit"
                    arguments = { (c.task.spawn(function() end)) }
                end
                local message
                local task = coroutine.create(function()
                    phases.now = place or nil
                    local ok, err = pcall(at(c, service.name), unpack(arguments))
                    if not ok then message = err end
                end)
                assert(coroutine.resume(task))
                phases.now = nil
                local refused = message ~= nil and message:find("may not be called", 1, true) ~= nil
                assert.equal(allowed, not refused)
                if refused then
                    local where = place and "in " .. place or "outside of hooks"
                    assert.truthy(message:find(("%s may not be called %s (allowed in: %s)"):format(service.name, where,
                        table.concat(service.hooks, ", ")), 1, true), message)
                end
            end)
        end
    end

    it("has a row for each function a policy sees", function()
        local found, listed = {}, {}
        local function walk(t, prefix)
            for key, value in pairs(t) do
                local name = prefix .. "." .. key
                if type(value) == "function" then found[#found + 1] = name end
                if type(value) == "table" and key ~= "doc" and key ~= "route" then walk(value, name) end
            end
        end
        walk(services(), "claw")
        for _, service in ipairs(phases.services) do listed[#listed + 1] = service.name end
        table.sort(found)
        table.sort(listed)
        assert.same(listed, found)
    end)
end)
