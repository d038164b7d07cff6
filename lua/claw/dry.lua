-- dry: while -explain and -replay run policies, nothing leaves the process, nothing waits, and nothing is counted where
-- others would see it.
--
-- The functions of core that would are replaced; tell(text) hears what would have been done. A spawned function runs at
-- once and to its end, a background function not at all.

local M = {}

M.CODE = "EEXPLAIN"

local function refused(what)
    return nil, what .. " is not called here: nothing leaves the process", M.CODE
end

-- A URL without its query, which may hold a key.
local function bare(url)
    local plain, query = url:match("^([^?#]*)(.*)$")
    plain = plain:gsub("^(%w+://)[^/@]*@", "%1")
    return plain .. (query ~= "" and "?…" or "")
end

-- Returns a function that puts everything back. name_of(index): an upstream's name.
function M.enter(core, name_of, tell)
    local kept, id = {}, 0
    local function replace(name, fn)
        kept[name] = core[name] or false
        core[name] = fn
    end
    replace("sleep", function() end)
    replace("join", function() end)
    replace("spawn", function(fn, ...)
        fn(...)
        id = id + 1
        return id
    end)
    replace("alive", function() return false, false end)
    replace("background", function()
        tell("would start a background task")
        return true
    end)
    replace("fetch", function(url, index, path, method)
        local place = path == "" and "its base_url" or path
        if url then
            tell(("would fetch %s %s"):format(method, bare(url)))
        else
            tell(("would fetch %s %s from upstream %s"):format(method, place, name_of(index)))
        end
        return refused("claw.http.fetch")
    end)
    replace("series", function() return true end)
    replace("redis", function(_, command)
        tell(("would ask redis: %s"):format(tostring(command)))
        return refused("claw.redis")
    end)
    return function()
        for name, fn in pairs(kept) do core[name] = fn or nil end
    end
end

return M
