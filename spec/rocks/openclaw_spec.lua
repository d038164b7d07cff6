-- rocks/openclaw-scm-1.rockspec lists every module under lua/, and nothing that is not there.

local ROOT = os.getenv("CLAW_ROOT") or "."

local function listed()
    local env = {}
    local chunk = assert(loadfile(ROOT .. "/rocks/openclaw-scm-1.rockspec"))
    setfenv(chunk, env)()
    return env.build.modules
end

describe("the rock", function()
    it("lists every file under lua/", function()
        local by_file = {}
        for module, file in pairs(listed()) do
            assert.equal(file:match("^lua/(.*)%.lua$"):gsub("/", "."):gsub("%.init$", ""), module)
            by_file[file] = true
        end
        local found, pipe = 0, assert(io.popen(("cd '%s' && find lua -name '*.lua'"):format(ROOT)))
        for file in pipe:lines() do
            if not file:find("%.d%.lua$") then -- annotations are for editors
                assert.is_true(by_file[file], file .. " is not listed: run make docs")
                found = found + 1
            end
        end
        pipe:close()
        assert.is_true(found > 60)
    end)

    it("lists only what is there", function()
        for _, file in pairs(listed()) do
            local handle = io.open(ROOT .. "/" .. file)
            assert.is_not_nil(handle, file)
            handle:close()
        end
    end)
end)
