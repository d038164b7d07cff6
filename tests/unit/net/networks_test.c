/* networks: what lies in them, at every edge, also against a plain search. */
#include "net/networks.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct claw_arena arena;

static int set_up(void **state)
{
    claw_arena_init(&arena, NULL, 0, 64u << 20);
    return 0;
}

static int tear_down(void **state)
{
    claw_arena_reset(&arena);
    return 0;
}

static bool have(const struct claw_networks *w, const char *text)
{
    struct claw_ip ip;
    assert_true(claw_ip_read(claw_str_of(text), &ip));
    return claw_networks_have(w, &ip);
}

static void reads_addresses(void **state)
{
    static const char *const bad[] = {"", "1.2.3", "1.2.3.4.5", "256.1.1.1", "1.2.3.4:80", "[::1]", "::1%eth0", "fe80::1::2", "x", " 1.2.3.4", "1.2.3.4 ",
                                      "0123456789012345678901234567890123456789012345678901234567890"};
    struct claw_ip ip, other;
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) assert_false(claw_ip_read(claw_str_of(bad[i]), &ip));
    assert_false(claw_ip_read((struct claw_str){"::1\0x", 5}, &ip));
    assert_true(claw_ip_read(CLAW_STR("10.1.2.3"), &ip));
    assert_true(claw_ip_read(CLAW_STR("::ffff:10.1.2.3"), &other));
    assert_memory_equal(&ip, &other, sizeof ip);
}

static void edges(void **state)
{
    const struct claw_str texts[] = {CLAW_STR("10.0.0.0/8"), CLAW_STR("192.168.1.7"), CLAW_STR("fd00::/8"), CLAW_STR("10.200.0.0/16"), CLAW_STR("172.16.5.9/12"),
                                     CLAW_STR("not one"), CLAW_STR("1.2.3.4/33")};
    struct claw_networks *w = claw_networks_new(&arena, texts, 7);
    static const struct { const char *ip; bool in; } all[] = {
        {"9.255.255.255", false}, {"10.0.0.0", true}, {"10.255.255.255", true}, {"11.0.0.0", false}, {"192.168.1.6", false}, {"192.168.1.7", true},
        {"192.168.1.8", false}, {"fcff:ffff::", false}, {"fd00::", true}, {"fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", true}, {"fe00::", false},
        {"::ffff:10.9.9.9", true}, {"::10.9.9.9", false}, {"172.15.255.255", false}, {"172.16.0.0", true}, {"172.31.255.255", true}, {"172.32.0.0", false},
        {"1.2.3.4", false},
    };
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++)
        if (have(w, all[i].ip) != all[i].in) fail_msg("%s", all[i].ip);
    assert_true(have(claw_networks_new(&arena, (struct claw_str[]){CLAW_STR("0.0.0.0/0")}, 1), "8.8.8.8"));
    assert_false(have(claw_networks_new(&arena, (struct claw_str[]){CLAW_STR("0.0.0.0/0")}, 1), "2001::1"));
    static const char *const wide[] = {"::/0", "::/1", "::/64", "::/80", "::ffff:1.2.3.4/95"}; /* all of IPv4 is mapped into them */
    for (unsigned i = 0; i < sizeof wide / sizeof *wide; i++) {
        w = claw_networks_new(&arena, (struct claw_str[]){claw_str_of(wide[i])}, 1);
        assert_false(have(w, "8.8.8.8") || have(w, "0.0.0.0") || have(w, "255.255.255.255"));
        assert_true(have(w, "::fffe:ffff:ffff") && (i == 4 || have(w, "::1")));
        assert_int_equal(have(w, "::1:0:0:0"), i < 3);
    }
    w = claw_networks_new(&arena, (struct claw_str[]){CLAW_STR("::/0"), CLAW_STR("10.0.0.0/8")}, 2);
    assert_true(have(w, "10.1.2.3") && have(w, "ffff::1") && have(w, "::1:0:0:0"));
    assert_false(have(w, "11.0.0.0"));
    assert_true(have(claw_networks_new(&arena, (struct claw_str[]){CLAW_STR("::ffff:0:0/96")}, 1), "8.8.8.8"));
    assert_false(have(claw_networks_new(&arena, NULL, 0), "8.8.8.8"));
}

static void against_a_plain_search(void **state)
{
    static char texts[500][24];
    static struct claw_str list[500];
    uint32_t first[500], last[500];
    srand(7);
    for (unsigned i = 0; i < 500; i++) {
        unsigned bits = 8 + (unsigned)rand() % 25;
        uint32_t ip = (uint32_t)rand() << 8 ^ (uint32_t)rand(), mask = bits ? 0xffffffffu << (32 - bits) : 0;
        snprintf(texts[i], sizeof texts[i], "%u.%u.%u.%u/%u", ip >> 24, ip >> 16 & 255, ip >> 8 & 255, ip & 255, bits);
        list[i] = claw_str_of(texts[i]);
        first[i] = ip & mask;
        last[i] = ip | ~mask;
    }
    struct claw_networks *w = claw_networks_new(&arena, list, 500);
    for (unsigned k = 0; k < 20000; k++) {
        uint32_t ip = k % 2 ? first[k % 500] + k % 3 - 1 : (uint32_t)rand() << 8 ^ (uint32_t)rand();
        char text[24];
        bool in = false;
        for (unsigned i = 0; i < 500; i++) in |= ip >= first[i] && ip <= last[i];
        snprintf(text, sizeof text, "%u.%u.%u.%u", ip >> 24, ip >> 16 & 255, ip >> 8 & 255, ip & 255);
        if (have(w, text) != in) fail_msg("%s", text);
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {TEST(reads_addresses), TEST(edges), TEST(against_a_plain_search)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
