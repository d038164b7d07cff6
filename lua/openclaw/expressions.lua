-- expressions: claw.re's engine for tests: the same PCRE2 as in the proxy, by LuaJIT's ffi. Bounds on backtracking and
-- memory as there, none on time. Where the library is missing the first call says so, and nothing else of a policy.

local M = {}

local UTF, NEVER_BACKSLASH_C = 0x00080000, 0x00100000
local NOTEMPTY_ATSTART, ANCHORED, NO_UTF_CHECK = 0x00000008, 0x80000000, 0x40000000
local NOMATCH, UTF8_ERR1, UTF8_ERR21, BADUTFOFFSET = -1, -3, -23, -36
local CAPTURE_COUNT = 4
local PATTERN_MAX, TEXT_MAX, CAPTURES_MAX = 4096, 2 ^ 20, 32

local ffi, lib

-- The library, loaded when first needed.
local function library()
    if lib then return lib end
    ffi = require("ffi")
    ffi.cdef([[
        typedef struct pcre2_real_code_8 claw_pcre2_code;
        typedef struct pcre2_real_match_data_8 claw_pcre2_match;
        typedef struct pcre2_real_match_context_8 claw_pcre2_context;
        claw_pcre2_code *pcre2_compile_8(const char *, size_t, uint32_t, int *, size_t *, void *);
        void pcre2_code_free_8(claw_pcre2_code *);
        int pcre2_get_error_message_8(int, char *, size_t);
        int pcre2_pattern_info_8(const claw_pcre2_code *, uint32_t, void *);
        claw_pcre2_match *pcre2_match_data_create_from_pattern_8(const claw_pcre2_code *, void *);
        void pcre2_match_data_free_8(claw_pcre2_match *);
        size_t *pcre2_get_ovector_pointer_8(claw_pcre2_match *);
        uint32_t pcre2_get_ovector_count_8(claw_pcre2_match *);
        claw_pcre2_context *pcre2_match_context_create_8(void *);
        void pcre2_match_context_free_8(claw_pcre2_context *);
        int pcre2_set_match_limit_8(claw_pcre2_context *, uint32_t);
        int pcre2_set_depth_limit_8(claw_pcre2_context *, uint32_t);
        int pcre2_set_heap_limit_8(claw_pcre2_context *, uint32_t);
        int pcre2_match_8(const claw_pcre2_code *, const char *, size_t, size_t, uint32_t, claw_pcre2_match *,
            claw_pcre2_context *);
    ]])
    for _, name in ipairs(M.names) do
        local ok, found = pcall(ffi.load, name)
        if ok then
            lib = found
            return lib
        end
    end
    ffi = nil
    error("claw.re: there is no libpcre2-8 on this machine (Debian: apt install libpcre2-8-0)", 0)
end

M.names = { "pcre2-8", "libpcre2-8.so.0" }

-- A compiled pattern; or nil, what is wrong, and where.
function M.compile(pattern)
    if #pattern > PATTERN_MAX then return nil, "it has more than 4096 bytes", 1 end
    local l = library()
    local code, at, count = ffi.new("int[1]"), ffi.new("size_t[1]"), ffi.new("uint32_t[1]")
    local made = l.pcre2_compile_8(pattern, #pattern, UTF + NEVER_BACKSLASH_C, code, at, nil)
    if made == nil then
        local text = ffi.new("char[160]")
        l.pcre2_get_error_message_8(code[0], text, 160)
        return nil, ffi.string(text), tonumber(at[0]) + 1
    end
    ffi.gc(made, l.pcre2_code_free_8)
    l.pcre2_pattern_info_8(made, CAPTURE_COUNT, count)
    if count[0] > CAPTURES_MAX then return nil, "it has more than 32 captures", tonumber(at[0]) + 1 end
    local context = ffi.gc(l.pcre2_match_context_create_8(nil), l.pcre2_match_context_free_8)
    l.pcre2_set_match_limit_8(context, 100000)
    l.pcre2_set_depth_limit_8(context, 10000)
    l.pcre2_set_heap_limit_8(context, 4096)
    local match = ffi.gc(l.pcre2_match_data_create_from_pattern_8(made, nil), l.pcre2_match_data_free_8)
    return { code = made, context = context, match = match }
end

-- As core.re_exec (core/script/api_re.c): from, to, captures (false: took no part); nothing; or nil, message, code.
function M.exec(compiled, text, init, no_empty, go_on)
    if #text > TEXT_MAX then return nil, "a text of more than 1 MB is not searched", "ETOO_LARGE" end
    if not (init >= 1 and init <= #text + 1) then return end
    local l, options = library(), (no_empty and NOTEMPTY_ATSTART + ANCHORED or 0) + (go_on and NO_UTF_CHECK or 0)
    local rc = l.pcre2_match_8(compiled.code, text, #text, init - 1, options, compiled.match, compiled.context)
    if rc == NOMATCH then return end
    if (rc <= UTF8_ERR1 and rc >= UTF8_ERR21) or rc == BADUTFOFFSET then
        return nil, "the text is not UTF-8, or init is within a character", "EUTF8"
    end
    if rc < 0 then return nil, "the pattern asks for too much on this text", "ELIMIT" end
    local at, out = l.pcre2_get_ovector_pointer_8(compiled.match), {}
    local from, to = tonumber(at[0]), tonumber(at[1])
    if from > to then return nil, "the pattern's match ends before it begins (\\K)", "ELIMIT" end
    local pairs_n = l.pcre2_get_ovector_count_8(compiled.match)
    for i = 1, pairs_n - 1 do
        local first, last = tonumber(at[2 * i]), tonumber(at[2 * i + 1])
        out[i] = first <= #text and text:sub(first + 1, last) -- unset: the largest number there is
    end
    return from + 1, to, unpack(out, 1, pairs_n - 1)
end

return M
