/* address: what is private, and what lies in a network. */
#include "net/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static struct sockaddr_storage at;

static const struct sockaddr *address(const char *text)
{
    memset(&at, 0, sizeof at);
    at.ss_family = strchr(text, ':') ? AF_INET6 : AF_INET;
    void *to = at.ss_family == AF_INET6 ? (void *)&((struct sockaddr_in6 *)&at)->sin6_addr : (void *)&((struct sockaddr_in *)&at)->sin_addr;
    assert_int_equal(inet_pton(at.ss_family, text, to), 1);
    return (const struct sockaddr *)&at;
}

static void what_is_private(void **state)
{
    static const char *const private[] = {
        "0.0.0.0", "0.255.255.255", "10.0.0.0", "10.255.255.255", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.255",
        "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1",
        "198.19.255.255", "198.51.100.7", "203.0.113.9", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "168.63.129.16",
        "::", "::1", "::7f00:1", "::ffff:10.0.0.1", "::ffff:8.8.8.8", "64:ff9b::a00:1", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:a00:1::",
        "3fff::1", "4000::1", "fc00::1", "fd00:ec2::254", "fe80::1", "febf::1", "fec0::1", "ff02::1", "5f00::1",
    };
    static const char *const public[] = {
        "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.1", "100.63.255.255", "100.128.0.1", "126.255.255.255", "128.0.0.1", "169.253.255.255",
        "169.255.0.1", "172.15.255.255", "172.32.0.1", "192.0.1.1", "192.167.255.255", "192.169.0.1", "198.17.255.255", "198.20.0.1",
        "223.255.255.255", "2606:4700:4700::1111", "2a00:1450::1", "2001:4860:4860::8888", "64:ff9b::808:808", "2001:200::1",
    };
    for (size_t i = 0; i < sizeof private / sizeof *private; i++)
        if (!claw_address_private(address(private[i]))) fail_msg("%s", private[i]);
    for (size_t i = 0; i < sizeof public / sizeof *public; i++)
        if (claw_address_private(address(public[i]))) fail_msg("%s", public[i]);
    at.ss_family = AF_UNIX;
    assert_true(claw_address_private((const struct sockaddr *)&at));
}

static void what_lies_in_a_network(void **state)
{
    static const struct { const char *address, *net; bool in; } cases[] = {
        {"10.1.2.3", "10.0.0.0/8", true}, {"11.1.2.3", "10.0.0.0/8", false}, {"10.1.2.3", "10.1.2.3", true}, {"10.1.2.4", "10.1.2.3", false},
        {"10.1.2.3", "0.0.0.0/0", true}, {"10.1.2.3", "10.1.2.2/31", true}, {"10.1.2.4", "10.1.2.2/31", false}, {"172.20.1.1", "172.16.0.0/12", true},
        {"fd00::1", "fd00::/8", true}, {"fe00::1", "fd00::/8", false}, {"::1", "::1", true}, {"::1", "::1/128", true}, {"::2", "::1", false},
        {"::ffff:10.0.0.1", "10.0.0.0/8", true}, {"::ffff:10.0.0.1", "::ffff:0:0/96", true}, {"::a00:1", "10.0.0.0/8", false},
        {"10.0.0.1", "::/0", false}, {"fd00::1", "0.0.0.0/0", false}, {"fd00:abcd::1", "fd00:abc0::/28", true},
        {"10.1.2.3", "", false}, {"10.1.2.3", "localhost", false}, {"10.1.2.3", "10.0.0.0/33", false}, {"10.1.2.3", "10.0.0.0/", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (claw_address_in(address(cases[i].address), claw_str_of(cases[i].net)) != cases[i].in) fail_msg("%s in %s", cases[i].address, cases[i].net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_is_private), cmocka_unit_test(what_lies_in_a_network)};
    return cmocka_run_group_tests_name("net/address", tests, NULL, NULL);
}
