/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The network configuration: what each key means, its refusals, and the runtime's wishes. */
#include "unit.h"

#include <stdio.h>
#include <string.h>

#include "cni/cni.h"

static struct netconf conf;
static enum cni_version version;
static struct err err;

static int parse(const char *text)
{
	netconf_done(&conf);
	err = ERR_INIT;
	version = CNI_VERSIONS;
	return netconf_parse(text, strlen(text), &conf, &version, &err);
}

/* The keys of a configuration that is whole but for them; "'" stands for '"'. */
static int parse_keys(const char *keys)
{
	char text[2048];

	(void)snprintf(text, sizeof(text),
		       "{'cniVersion':'1.0.0','name':'net','type':'poplin'%s%s}", *keys ? "," : "",
		       keys);
	for (char *c = text; (c = strchr(c, '\''));)
		*c = '"';
	return parse(text);
}

static int parse_ipam(const char *keys)
{
	char text[1024];

	(void)snprintf(text, sizeof(text), "'ipam':{'type':'poplin'%s%s}", *keys ? "," : "", keys);
	return parse_keys(text);
}

static void assert_taken(int r, const char *what)
{
	if (r)
		fail_msg("%s: code %d: %s", what, r, err.text);
}

static void assert_refused(int r, int code, const char *message, const char *what)
{
	if (r != code || !strstr(err.text, message))
		fail_msg("%s: code %d, '%s', not %d and '%s'", what, r, err.text, code, message);
	assert_null(conf.json);
}

static int teardown(void **state)
{
	netconf_done(&conf);
	return 0;
}

static void assert_addr(const struct addr *a, const char *expected)
{
	char text[ADDR_TEXT_MAX];

	assert_string_equal(addr_format(a, text), expected);
}

/* -- versions ------------------------------------------------------------------------ */

static void test_versions(void **state)
{
	char text[128];

	for (int v = 0; v < CNI_VERSIONS; v++) {
		(void)snprintf(text, sizeof(text), "{\"cniVersion\":\"%s\",\"name\":\"n\"}",
			       cni_version_names[v]);
		assert_taken(parse(text), text);
		assert_int_equal(conf.version, v);
		assert_int_equal(version, v);
		/* An error is told in the version that was asked for. */
		(void)snprintf(text, sizeof(text), "{\"cniVersion\":\"%s\"}", cni_version_names[v]);
		assert_refused(parse(text), CNI_INVALID_CONFIG, "'name' is missing", text);
		assert_int_equal(version, v);
	}
	assert_taken(parse("{\"name\":\"n\"}"), "none");
	assert_int_equal(conf.version, CNI_0_1_0);
	assert_taken(parse("{\"name\":\"n\",\"cniVersion\":\"\"}"), "empty");
	assert_int_equal(conf.version, CNI_0_1_0);
	assert_refused(parse("{\"name\":\"n\",\"cniVersion\":\"2.0.0\"}"), CNI_INCOMPATIBLE_VERSION,
		       "'2.0.0', which is not spoken: 0.1.0 to 1.1.0", "2.0.0");
	assert_refused(parse("{\"name\":\"n\",\"cniVersion\":1}"), CNI_INCOMPATIBLE_VERSION,
		       "no text", "number");
	assert_int_equal(version, CNI_VERSIONS);
}

static void test_no_object(void **state)
{
	static const char *const texts[] = {
		"", "[]", "7", "\"x\"", "{", "{}x", "{\"a\":1,\"a\":2}", "{\"a\":\"\xff\"}", "null"
	};

	for (size_t i = 0; i < countof(texts); i++)
		assert_refused(parse(texts[i]), CNI_DECODE_FAILURE, "not a JSON object", texts[i]);
}

/* -- keys of bridge ------------------------------------------------------------------- */

static void test_defaults(void **state)
{
	assert_taken(parse_keys("'unknown':{'a':[1]},'mtu':null,'ipam':null"), "defaults");
	assert_string_equal(conf.name, "net");
	assert_string_equal(conf.bridge, "cni0");
	assert_string_equal(conf.state_dir, "");
	assert_int_equal(conf.mtu, 0);
	assert_int_equal(conf.network.addr.family, AF_UNSPEC);
	assert_int_equal(conf.ipam.kind, NETCONF_IPAM_NONE);
	assert_false(conf.is_gateway || conf.is_default_gateway || conf.force_address ||
		     conf.ip_masq || conf.hairpin || conf.promiscuous || conf.enable_dad ||
		     conf.mac_spoof_check || conf.port_isolation || conf.disable_interface);
}

/* Go's decoder, and so the plugin bridge, takes them alike; the exact one goes first. */
static void test_keys_of_other_case(void **state)
{
	assert_taken(parse_keys("'IsGateway':true,'MacSpoofChk':true,'BRIDGE':'br0',"
				"'IPAM':{'type':'poplin','Subnet':'10.7.1.0/24'}"),
		     "other case");
	assert_true(conf.is_gateway && conf.mac_spoof_check);
	assert_string_equal(conf.bridge, "br0");
	assert_int_equal(conf.ipam.pool.nranges, 1);
	assert_taken(parse_keys("'ISGATEWAY':true,'isGateway':false"), "both");
	assert_false(conf.is_gateway);
	assert_int_equal(parse_keys("'VLAN':100"), CNI_UNSUPPORTED_FIELD);
}

static void test_flags(void **state)
{
	const struct {
		const char *key;
		const bool *flag;
	} flags[] = {
		{ "isGateway", &conf.is_gateway },
		{ "isDefaultGateway", &conf.is_default_gateway },
		{ "forceAddress", &conf.force_address },
		{ "ipMasq", &conf.ip_masq },
		{ "hairpinMode", &conf.hairpin },
		{ "promiscMode", &conf.promiscuous },
		{ "enabledad", &conf.enable_dad },
		{ "macspoofchk", &conf.mac_spoof_check },
		{ "portIsolation", &conf.port_isolation },
		{ "disableContainerInterface", &conf.disable_interface },
	};
	char text[64], message[64];

	for (size_t i = 0; i < countof(flags); i++) {
		(void)snprintf(text, sizeof(text), "'%s':true", flags[i].key);
		assert_taken(parse_keys(text), text);
		assert_true(*flags[i].flag);
		(void)snprintf(text, sizeof(text), "'%s':false", flags[i].key);
		assert_taken(parse_keys(text), text);
		assert_false(*flags[i].flag);
		(void)snprintf(text, sizeof(text), "'%s':1", flags[i].key);
		(void)snprintf(message, sizeof(message), "'%s' is neither", flags[i].key);
		assert_refused(parse_keys(text), CNI_INVALID_CONFIG, message, text);
	}
	assert_taken(parse_keys("'isDefaultGateway':true"), "default gateway");
	assert_true(conf.is_gateway);
}

static void test_agent_keys(void **state)
{
	char text[PREFIX_TEXT_MAX];

	assert_taken(parse_keys("'stateDir':'/run/p','network':'10.2.0.0/16','bridge':'br0',"
				"'mtu':1400,'ipam':{'type':'poplin','subnet':'10.2.1.0/24'}"),
		     "agent's");
	assert_string_equal(conf.state_dir, "/run/p");
	assert_string_equal(prefix_format(&conf.network, text), "10.2.0.0/16");
	assert_string_equal(conf.bridge, "br0");
	assert_int_equal(conf.mtu, 1400);
	assert_string_equal(conf.ipam.pool.dir, "/run/p/ipam/net");
	/* What an agent before 0.1.0 wrote. */
	assert_taken(parse_keys("'stateDir':'/run/p','subnet':'10.2.1.0/24'"), "old agent's");
	assert_int_equal(conf.ipam.kind, NETCONF_IPAM_OWN);
	assert_true(conf.is_default_gateway && conf.hairpin);
}

static void test_bad_keys(void **state)
{
	static const struct {
		const char *keys;
		int code;
		const char *message;
	} cases[] = {
		{ "'mtu':-1", CNI_INVALID_CONFIG, "'mtu' must be a number from 0 to 65535" },
		{ "'mtu':65536", CNI_INVALID_CONFIG, "'mtu'" },
		{ "'mtu':'1500'", CNI_INVALID_CONFIG, "'mtu'" },
		{ "'mtu':1.5", CNI_INVALID_CONFIG, "'mtu'" },
		{ "'bridge':7", CNI_INVALID_CONFIG, "'bridge' is not a string" },
		{ "'bridge':'sixteencharacter'", CNI_INVALID_CONFIG, "'bridge' is longer than 15" },
		/* The kernel would make one more with each try. */
		{ "'bridge':'br%d'", CNI_INVALID_CONFIG, "'bridge' is 'br%d', not a name" },
		{ "'bridge':'a b'", CNI_INVALID_CONFIG, "'bridge' is 'a b', not a name" },
		{ "'stateDir':'run'", CNI_INVALID_CONFIG, "'stateDir' must be an absolute path" },
		{ "'network':'10.2.0.1/16'", CNI_INVALID_CONFIG, "'network'" },
		{ "'hairpinMode':true,'promiscMode':true", CNI_INVALID_CONFIG,
		  "exclude each other" },
		{ "'dns':[]", CNI_INVALID_CONFIG, "'dns' is not an object" },
		{ "'prevResult':7", CNI_INVALID_CONFIG, "'prevResult' is not an object" },
		{ "'runtimeConfig':'x'", CNI_INVALID_CONFIG, "'runtimeConfig' is not an object" },
		{ "'args':[]", CNI_INVALID_CONFIG, "'args' is not an object" },
		{ "'vlan':100", CNI_UNSUPPORTED_FIELD, "'vlan' is 100" },
		{ "'vlanTrunk':[{'id':1}]", CNI_UNSUPPORTED_FIELD, "'vlanTrunk'" },
		{ "'portIsolation':true,'stateDir':'/run/p'", CNI_UNSUPPORTED_FIELD,
		  "'portIsolation'" },
		{ "'ipMasqBackend':'iptables'", CNI_UNSUPPORTED_FIELD, "'ipMasqBackend'" },
		{ "'ipMasqBackend':7", CNI_INVALID_CONFIG, "'ipMasqBackend'" },
		{ "'disableContainerInterface':true,'ipam':{'type':'x'}", CNI_INVALID_CONFIG,
		  "'disableContainerInterface'" },
	};
	static const char *const nothing[] = {
		"'vlan':0",	      "'vlanTrunk':[]",	      "'macspoofchk':false",
		"'ipMasqBackend':''", "'portIsolation':null", "'ipMasqBackend':'nftables'"
	};
	static const char *const names[] = { "", ".x", "a/b", "a b", "..", "\xc3\xa9" };
	char text[64];

	for (size_t i = 0; i < countof(cases); i++)
		assert_refused(parse_keys(cases[i].keys), cases[i].code, cases[i].message,
			       cases[i].keys);
	for (size_t i = 0; i < countof(nothing); i++)
		assert_taken(parse_keys(nothing[i]), nothing[i]);
	for (size_t i = 0; i < countof(names); i++) {
		(void)snprintf(text, sizeof(text), "{\"name\":\"%s\"}", names[i]);
		assert_refused(parse(text), CNI_INVALID_CONFIG, "'name' is", text);
	}
}

/* -- ipam ------------------------------------------------------------------------------- */

static void test_ranges(void **state)
{
	const struct ipam_pool *pool = &conf.ipam.pool;

	assert_taken(parse_ipam("'ranges':[[{'subnet':'10.7.1.0/24','rangeStart':'10.7.1.50',"
				"'rangeEnd':'10.7.1.60','gateway':'10.7.1.254'},"
				"{'subnet':'10.8.1.0/24'}],[{'subnet':'fd00:7::/64'}]],"
				"'dataDir':'/data'"),
		     "ranges");
	assert_int_equal(conf.ipam.kind, NETCONF_IPAM_OWN);
	assert_string_equal(pool->dir, "/data/net");
	assert_int_equal(pool->nsets, 2);
	assert_int_equal(pool->nranges, 3);
	assert_addr(&pool->ranges[0].first, "10.7.1.50");
	assert_addr(&pool->ranges[0].last, "10.7.1.60");
	assert_addr(&pool->ranges[0].gateway, "10.7.1.254");
	assert_addr(&pool->ranges[1].gateway, "10.8.1.1");
	assert_addr(&pool->ranges[1].last, "10.8.1.254");
	assert_int_equal(pool->ranges[2].set, 1);

	assert_taken(parse_ipam("'subnet':'10.7.1.0/24','subnet6':'fd00:7::/64'"), "dual");
	assert_int_equal(pool->nsets, 2);
	assert_string_equal(pool->dir, "/run/poplin/ipam/net");

	assert_taken(parse_ipam("'subnet':'10.7.1.0/24','exclude':['10.7.1.5','10.7.1.64/26'],"
				"'reserve':['10.7.1.10-10.7.1.20']"),
		     "holes");
	assert_int_equal(pool->nholes, 3);
	assert_addr(&pool->holes[1].first, "10.7.1.64");
	assert_addr(&pool->holes[1].last, "10.7.1.127");
	assert_false(pool->holes[0].on_request);
	assert_true(pool->holes[2].on_request);
	assert_addr(&pool->holes[2].last, "10.7.1.20");

	/* A runtime's ranges come first. */
	assert_taken(parse_keys("'runtimeConfig':{'ipRanges':[[{'subnet':'10.9.1.0/24'}]]},"
				"'ipam':{'type':'poplin','ranges':[[{'subnet':'10.7.1.0/24'}]]}"),
		     "runtime");
	assert_int_equal(pool->nsets, 2);
	assert_addr(&pool->ranges[0].gateway, "10.9.1.1");
}

static void test_routes(void **state)
{
	const struct netconf_route *route = conf.ipam.routes;

	assert_taken(parse_ipam("'subnet':'10.7.1.0/24','routes':[{'dst':'0.0.0.0/0'},"
				"{'dst':'10.9.0.0/16','gw':'10.7.1.7','mtu':1400,'advmss':1360,"
				"'priority':9,'table':0,'scope':253}],'resolvConf':'/r'"),
		     "routes");
	assert_int_equal(conf.ipam.nroutes, 2);
	assert_int_equal(route[0].gateway.family, AF_UNSPEC);
	assert_int_equal(route[0].table, -1);
	assert_int_equal(route[0].scope, -1);
	assert_addr(&route[1].gateway, "10.7.1.7");
	assert_int_equal(route[1].mtu, 1400);
	assert_int_equal(route[1].advmss, 1360);
	assert_int_equal(route[1].priority, 9);
	assert_int_equal(route[1].table, 0);
	assert_int_equal(route[1].scope, 253);
	assert_string_equal(conf.ipam.resolv_conf, "/r");
}

static void test_other_ipam(void **state)
{
	assert_taken(parse_keys("'ipam':{'type':'host-local','subnet':7}"), "another plugin's");
	assert_int_equal(conf.ipam.kind, NETCONF_IPAM_DELEGATED);
	assert_string_equal(conf.ipam.type, "host-local");
	assert_taken(parse_keys("'ipam':{}"), "none");
	assert_int_equal(conf.ipam.kind, NETCONF_IPAM_NONE);
	assert_refused(parse_keys("'ipam':{'type':'../sh'}"), CNI_INVALID_CONFIG, "no name",
		       "path");
	assert_refused(parse_keys("'ipam':{'type':7}"), CNI_INVALID_CONFIG, "'type'", "number");
	assert_refused(parse_keys("'ipam':[]"), CNI_INVALID_CONFIG, "'ipam' is not an object",
		       "[]");
}

#define NET "'subnet':'10.7.1.0/24',"

static void test_bad_ipam(void **state)
{
	static const struct {
		const char *keys, *message;
	} cases[] = {
		{ "", "neither 'subnet' nor 'ranges'" },
		{ "'ranges':{}", "'ranges' is not a list" },
		{ "'ranges':[[]]", "'ranges' has what is not a list of ranges" },
		{ "'ranges':[7]", "'ranges' has what is not a list of ranges" },
		{ "'ranges':[[{}]]", "a range of 'ranges' lacks 'subnet'" },
		{ "'ranges':[[7]]", "a range of 'ranges' lacks 'subnet'" },
		{ "'subnet':7", "'subnet' is not a string" },
		{ "'subnet':'10.7.1.5/24'", "'subnet'" },
		{ "'subnet':'10.7.1.0/31'", "too small" },
		{ NET "'rangeStart':'10.7.2.1'", "not of subnet" },
		{ NET "'rangeEnd':'10.7.2.1'", "not of subnet" },
		{ NET "'rangeStart':'10.7.1.9','rangeEnd':'10.7.1.8'", "ends before it begins" },
		{ NET "'rangeStart':'x'", "'rangeStart'" },
		{ NET "'gateway':'x'", "'gateway'" },
		{ NET "'gateway':'fd00:7::1'", "not of the family of subnet 10.7.1.0/24" },
		{ NET "'subnet6':'10.8.1.0/24'", "'subnet6' is not of IPv6" },
		{ NET "'ranges':[[{'subnet':'10.7.0.0/16'}]]", "overlap" },
		{ "'ranges':[[{'subnet':'10.7.1.0/24'},{'subnet':'fd00:7::/64'}]]",
		  "not of one family" },
		{ NET "'exclude':'x'", "'exclude' is not a list" },
		{ NET "'exclude':[7]", "'exclude' has what is not a string" },
		{ NET "'exclude':['x']", "'exclude'" },
		{ NET "'exclude':['10.7.1.0/33']", "'exclude'" },
		{ NET "'reserve':['10.7.1.9-10.7.1.8']", "'reserve'" },
		{ NET "'reserve':['10.7.1.9-fd00::1']", "'reserve'" },
		{ NET "'routes':{}", "'routes' is not a list" },
		{ NET "'routes':[{}]", "lacks 'dst'" },
		{ NET "'routes':[{'dst':'x'}]", "'dst'" },
		{ NET "'routes':[{'dst':'10.9.0.0/16','gw':'fd00::1'}]", "not of one family" },
		{ NET "'routes':[{'dst':'10.9.0.0/16','mtu':-1}]", "'mtu'" },
		{ NET "'routes':[{'dst':'10.9.0.0/16','scope':256}]", "'scope'" },
		{ NET "'dataDir':'data'", "'dataDir' must be an absolute path" },
		{ NET "'resolvConf':7", "'resolvConf' is not a string" },
	};

	for (size_t i = 0; i < countof(cases); i++)
		assert_refused(parse_ipam(cases[i].keys), CNI_INVALID_CONFIG, cases[i].message,
			       cases[i].keys);
	assert_refused(parse("{\"cniVersion\":\"0.2.0\",\"name\":\"n\",\"ipam\":{\"type\":"
			     "\"poplin\",\"ranges\":[[{\"subnet\":\"10.7.1.0/24\"}],"
			     "[{\"subnet\":\"10.8.1.0/24\"}]]}}"),
		       CNI_INVALID_CONFIG, "'cniVersion' 0.2.0 cannot tell", "two of one family");
}

/* -- wishes ----------------------------------------------------------------------------- */

static int wish(const char *keys, const char *args, struct wishes *ret)
{
	struct request req = { .netns = "", .args = args };

	assert_taken(parse_keys(keys), keys);
	req.conf = conf;
	err = ERR_INIT;
	return wishes_read(&req, ret, &err);
}

static void test_wishes(void **state)
{
	struct wishes w;

	assert_taken(wish("", "", &w), "nothing");
	assert_true(w.naddresses == 0 && !w.has_mac);
	assert_taken(wish("", "IP=10.7.1.5/24;MAC=02:11:22:33:44:55;K8S_POD_NAME=x;;", &w), "args");
	assert_int_equal(w.naddresses, 1);
	assert_addr(&w.addresses[0], "10.7.1.5");
	assert_true(w.has_mac && w.mac[5] == 0x55);
	assert_taken(wish("", "a=b;IgnoreUnknown=true", &w), "unknown");
	/* All addresses, each once; the MAC of "runtimeConfig" before "args", that before CNI_ARGS. */
	assert_taken(wish("'args':{'cni':{'ips':['10.7.1.6'],'mac':'02:11:22:33:44:66'}}",
			  "IP=10.7.1.5;MAC=02:11:22:33:44:55", &w),
		     "'args'");
	assert_int_equal(w.naddresses, 2);
	assert_addr(&w.addresses[1], "10.7.1.6");
	assert_int_equal(w.mac[5], 0x66);
	assert_taken(wish("'args':{'cni':{'ips':['10.7.1.5'],'mac':'02:11:22:33:44:66'}},"
			  "'runtimeConfig':{'ips':['10.7.1.5','fd00:7::7/64'],"
			  "'mac':'02:11:22:33:44:77'}",
			  "IP=10.7.1.5", &w),
		     "'runtimeConfig'");
	assert_int_equal(w.naddresses, 2);
	assert_addr(&w.addresses[0], "10.7.1.5");
	assert_addr(&w.addresses[1], "fd00:7::7");
	assert_int_equal(w.mac[5], 0x77);
}

static void test_bad_wishes(void **state)
{
	static const struct {
		const char *keys, *args;
		int code;
		const char *message;
	} cases[] = {
		{ "", "a=b", CNI_INVALID_ENVIRONMENT, "'a' is not known" },
		{ "", "IP", CNI_INVALID_ENVIRONMENT, "'IP' is no 'key=value'" },
		{ "", "IP=x", CNI_INVALID_ENVIRONMENT, "CNI_ARGS" },
		{ "", "MAC=02:11", CNI_INVALID_ENVIRONMENT, "not a MAC" },
		{ "", "MAC=01:11:22:33:44:55", CNI_INVALID_ENVIRONMENT, "not a MAC" },
		{ "", "MAC=00:00:00:00:00:00", CNI_INVALID_ENVIRONMENT, "not a MAC" },
		{ "", "IgnoreUnknown=2", CNI_INVALID_ENVIRONMENT, "neither true nor false" },
		{ "'runtimeConfig':{'ips':'x'}", "", CNI_INVALID_CONFIG,
		  "'ips' of 'runtimeConfig'" },
		{ "'runtimeConfig':{'ips':[7]}", "", CNI_INVALID_CONFIG, "'runtimeConfig'" },
		{ "'runtimeConfig':{'mac':7}", "", CNI_INVALID_CONFIG, "'mac' of 'runtimeConfig'" },
		{ "'args':{'cni':{'mac':'x'}}", "", CNI_INVALID_CONFIG,
		  "'args': 'x' is not a MAC" },
		{ "'args':{'cni':{'ips':['1.1.1.1','1.1.1.2','1.1.1.3','1.1.1.4','1.1.1.5',"
		  "'1.1.1.6','1.1.1.7','1.1.1.8','1.1.1.9']}}",
		  "", CNI_INVALID_CONFIG, "more than 8 addresses" },
	};

	for (size_t i = 0; i < countof(cases); i++) {
		struct wishes w;
		int r = wish(cases[i].keys, cases[i].args, &w);

		if (r != cases[i].code || !strstr(err.text, cases[i].message))
			fail_msg("%s %s: code %d, '%s'", cases[i].keys, cases[i].args, r, err.text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_versions),   cmocka_unit_test(test_no_object),
		cmocka_unit_test(test_defaults),   cmocka_unit_test(test_keys_of_other_case),
		cmocka_unit_test(test_flags),	   cmocka_unit_test(test_agent_keys),
		cmocka_unit_test(test_bad_keys),   cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_routes),	   cmocka_unit_test(test_other_ipam),
		cmocka_unit_test(test_bad_ipam),   cmocka_unit_test(test_wishes),
		cmocka_unit_test(test_bad_wishes),
	};

	return cmocka_run_group_tests(tests, NULL, teardown);
}
