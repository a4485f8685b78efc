/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How the store is reached, and what is made of odd answers: a server that plays a script, one
 * answer for each connection.
 */
#include <stdarg.h>
#include <sys/stat.h>

#include "etcd_server.h"
#include "poplin/base/file.h"
#include "poplin/base/thread.h"

#define HEAD "Connection: close\r\nContent-Type: application/json\r\n\r\n"
#define OK   "HTTP/1.1 200 OK\r\n" HEAD

struct script {
	struct thread thread;
	int fd;
	uint16_t port;
	char endpoint[64];
	const char *const *answers; /* NULL-terminated */
	struct buf requests;	    /* first lines, Authorization lines and bodies */
	unsigned played;
};

/* The whole of a request, as far as it is told by Content-Length. */
static bool read_request(int fd, struct buf *ret)
{
	char data[4096];
	const char *body, *length;
	size_t start = ret->len;
	ssize_t n;

	for (;;) {
		body = ret->data ? strstr(ret->data + start, "\r\n\r\n") : NULL;
		length = body ? strstr(ret->data + start, "Content-Length: ") : NULL;
		if (body && (!length || strlen(body + 4) >= strtoul(length + 16, NULL, 10)))
			return true;
		n = read(fd, data, sizeof(data));
		if (n <= 0)
			return false;
		assert_int_equal(buf_add(ret, data, (size_t)n), 0);
	}
}

static void *play(void *arg)
{
	struct script *s = arg;

	for (; s->answers[s->played]; s->played++) {
		int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC);

		if (fd < 0)
			return NULL;
		if (read_request(fd, &s->requests))
			(void)!write(fd, s->answers[s->played], strlen(s->answers[s->played]));
		close(fd);
		buf_adds(&s->requests, "\n--\n");
	}
	return NULL;
}

static void script_start(struct script *s, const char *const *answers)
{
	*s = (struct script){ .answers = answers };
	s->fd = bind_any(&s->port);
	assert_int_equal(listen(s->fd, 8), 0);
	(void)snprintf(s->endpoint, sizeof(s->endpoint), "127.0.0.1:%u", s->port);
	assert_int_equal(thread_start(&s->thread, "script", play, s), 0);
}

/* requests: gets what was asked; may be NULL. */
static void script_end(struct script *s, struct buf *requests)
{
	(void)shutdown(s->fd, SHUT_RDWR);
	thread_join(&s->thread);
	close(s->fd);
	if (requests)
		assert_int_equal(buf_adds(requests, s->requests.data), 0);
	buf_done(&s->requests);
}

static char folder[] = "/tmp/poplin-test-access-XXXXXX";

static const char *in_folder(const char *name)
{
	static char paths[4][128];
	static unsigned next;
	char *path = paths[next++ % 4];

	(void)snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
	return path;
}

static void write_file(const char *name, const char *text)
{
	assert_int_equal(file_write_atomic(in_folder(name), 0600, text, strlen(text), NULL), 0);
}

static struct store *open_at(const struct script *script, bool login)
{
	const struct store_config config = {
		.access = { .endpoints = script->endpoint,
			    .user = login ? "poplin" : NULL,
			    .password_file = login ? in_folder("password") : NULL },
		.prefix = "/p",
		.counter_key = "/c",
	};
	struct store *s = NULL;

	assert_int_equal(store_open(&s, &config, NULL), 0);
	return s;
}

struct told {
	struct buf text;
};

static int on_change(const struct store_change *change, void *arg, struct err *err)
{
	struct told *told = arg;

	return buf_printf(&told->text, "%s%s ", change->value ? "+" : "-", change->node);
}

#define HANDLER(told) ((struct store_handler){ .on_change = on_change, .arg = &(told) })

/* Plays a list; what it ended with. */
static int list(const char *const *answers, bool login, struct err *err, struct buf *requests)
{
	struct told told = { .text = BUF_INIT };
	const struct store_handler handler = HANDLER(told);
	struct script script;
	struct store *s;
	int r;

	script_start(&script, answers);
	s = open_at(&script, login);
	r = store_list(s, &handler, err);
	store_close(s);
	script_end(&script, requests);
	buf_done(&told.text);
	return r;
}

/* -- TLS ------------------------------------------------------------------------ */

static void openssl(const char *name)
{
	char command[512];

	(void)snprintf(command, sizeof(command),
		       "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes "
		       "-days 2 -subj /O=test -keyout %s/%s.key -out %s/%s.crt 2>/dev/null",
		       folder, name, folder, name);
	if (system(command) != 0)
		skip();
}

static int check_tls(const char *ca, const char *cert, const char *key, struct err *err)
{
	const struct store_access access = {
		.endpoints = "127.0.0.1",
		.ca_file = ca,
		.cert_file = cert,
		.key_file = key,
	};

	return store_access_check(&access, err);
}

static void tls_files_are_checked(void **state)
{
	struct err err = ERR_INIT;

	openssl("a");
	openssl("b");
	write_file("nonsense", "nonsense\n");
	write_file("empty", "");
	SHOULD_WORK(check_tls(in_folder("a.crt"), NULL, NULL, &err), &err);
	SHOULD_WORK(check_tls(in_folder("a.crt"), in_folder("b.crt"), in_folder("b.key"), &err),
		    &err);
	SHOULD_WORK(check_tls("", in_folder("b.crt"), in_folder("b.key"), &err), &err);
	assert_int_equal(check_tls(NULL, in_folder("a.crt"), in_folder("b.key"), &err), -EINVAL);
	assert_non_null(strstr(err.text, "b.key"));
	assert_int_equal(check_tls(in_folder("nonsense"), NULL, NULL, &err), -EINVAL);
	assert_non_null(strstr(err.text, "nonsense"));
	assert_int_equal(check_tls(NULL, in_folder("nonsense"), in_folder("a.key"), &err), -EINVAL);
	assert_int_equal(check_tls(NULL, in_folder("a.crt"), in_folder("nonsense"), &err), -EINVAL);
	assert_int_equal(check_tls(in_folder("none"), NULL, NULL, &err), -ENOENT);
	assert_int_equal(check_tls(in_folder("empty"), NULL, NULL, &err), -ENODATA);
	assert_int_equal(check_tls(folder, NULL, NULL, &err), -EISDIR);
	assert_int_equal(check_tls(NULL, in_folder("a.crt"), NULL, &err), -EINVAL);
	assert_int_equal(check_tls(NULL, NULL, in_folder("a.key"), &err), -EINVAL);
}

static void tls_files_exclude_plain_text(void **state)
{
	struct store_access access = { .endpoints = "a,https://b", .ca_file = "/ca" };
	struct access *a = NULL;
	struct err err = ERR_INIT;

	SHOULD_WORK(access_new(&a, &access, &err), &err);
	for (unsigned i = 0; i < a->endpoints.count; i++)
		assert_memory_equal(a->endpoints.urls[i], "https://", 8);
	access_free(a);
	access.endpoints = "https://b,http://a";
	assert_int_equal(access_new(&a, &access, &err), -EINVAL);
	assert_non_null(strstr(err.text, "plain text"));
	access.ca_file = "";
	SHOULD_WORK(access_new(&a, &access, &err), &err);
	access_free(a);
}

static void agents_try_the_endpoints_in_orders_of_their_own(void **state)
{
	const struct store_access access = { .endpoints = "a,b,c" };
	unsigned first[3] = { 0, 0, 0 };

	for (int i = 0; i < 300; i++) {
		struct access *a = NULL;

		assert_int_equal(access_new(&a, &access, NULL), 0);
		assert_int_equal(a->endpoints.count, 3);
		first[a->endpoints.urls[0][7] - 'a']++;
		access_free(a);
	}
	for (int i = 0; i < 3; i++)
		assert_true(first[i] > 50);
}

/* -- logins ------------------------------------------------------------------------ */

#define LISTED	OK "{\"header\":{\"cluster_id\":\"1\",\"revision\":\"5\"}}"
#define TOKEN_1 OK "{\"header\":{\"revision\":\"5\"},\"token\":\"one.1\"}"
#define TOKEN_2 OK "{\"header\":{\"revision\":\"5\"},\"token\":\"two.2\"}"
#define REFUSED                                                                                    \
	"HTTP/1.1 401 Unauthorized\r\n" HEAD "{\"error\":\"etcdserver: invalid auth token\","      \
	"\"code\":16,\"message\":\"etcdserver: invalid auth token\"}"
#define DENIED                                                                                     \
	"HTTP/1.1 403 Forbidden\r\n" HEAD "{\"code\":7,\"message\":\"etcdserver: permission "      \
	"denied\",\"details\":[]}"
#define NO_USERS                                                                                   \
	"HTTP/1.1 400 Bad Request\r\n" HEAD "{\"error\":\"etcdserver: authentication is not "      \
	"enabled\",\"code\":9,\"message\":\"etcdserver: authentication is not enabled\"}"
#define WRONG                                                                                      \
	"HTTP/1.1 400 Bad Request\r\n" HEAD "{\"code\":3,\"message\":\"etcdserver: "               \
	"authentication failed, invalid user ID or password\",\"details\":[]}"

static void a_refused_token_is_replaced_once(void **state)
{
	static const char *const once[] = { TOKEN_1, REFUSED, TOKEN_2, LISTED, NULL };
	static const char *const ever[] = { TOKEN_1, REFUSED, TOKEN_2, REFUSED, LISTED, NULL };
	auto_buf struct buf seen = BUF_INIT;
	struct err err = ERR_INIT;

	write_file("password", "secret \"word\"\nmore\n");
	SHOULD_WORK(list(once, true, &err, &seen), &err);
	assert_non_null(strstr(seen.data, "{\"name\":\"poplin\",\"password\":\"secret "
					  "\\\"word\\\"\"}"));
	assert_non_null(strstr(seen.data, "Authorization: one.1\r\n"));
	assert_non_null(strstr(seen.data, "Authorization: two.2\r\n"));
	assert_int_equal(list(ever, true, &err, NULL), -EACCES);
	assert_non_null(strstr(err.text, "as user 'poplin'"));
}

static void what_a_login_cannot_mend_is_told(void **state)
{
	static const char *const denied[] = { TOKEN_1, DENIED, LISTED, NULL };
	static const char *const wrong[] = { WRONG, LISTED, NULL };
	static const char *const users[] = { REFUSED, LISTED, NULL };
	static const char *const no_users[] = { NO_USERS, LISTED, NULL };
	static const char *const split[] = { OK "{\"token\":\"a\\r\\nX-Evil: 1\"}", LISTED, NULL };
	auto_buf struct buf seen = BUF_INIT;
	struct err err = ERR_INIT;

	write_file("password", "secret");
	assert_int_equal(list(denied, true, &err, NULL), -EACCES);
	assert_non_null(strstr(err.text, "permission denied"));
	assert_int_equal(list(wrong, true, &err, NULL), -EACCES);
	assert_int_equal(list(users, false, &err, NULL), -EACCES);
	assert_non_null(strstr(err.text, "set ETCD_USER"));
	SHOULD_WORK(list(no_users, true, &err, &seen), &err);
	assert_null(strstr(seen.data, "Authorization"));
	assert_int_equal(list(split, true, &err, NULL), -EPROTO);
	assert_int_equal(unlink(in_folder("password")), 0);
	assert_int_equal(list(no_users, true, &err, NULL), -EACCES);
	assert_non_null(strstr(err.text, "password"));
}

/* -- what is no gateway -------------------------------------------------------------- */

#define NOT_FOUND "HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n404 page not found\n"

static void what_is_no_gateway_is_told_with_what_to_do(void **state)
{
	static const char *const off[] = {
		NOT_FOUND, OK "{\"etcdserver\":\"3.5.30\",\"etcdcluster\":\"3.5.0\"}", NULL
	};
	static const char *const web[] = { NOT_FOUND, NOT_FOUND, NULL };
	static const char *const name[] = {
		"HTTP/1.1 421 Misdirected Request\r\nConnection: close\r\n\r\n", NULL
	};
	static const char *const cn[] = { "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"
					  "CommonName of client sending a request against "
					  "gateway will be ignored and not used as expected\n",
					  NULL };
	struct err err = ERR_INIT;

	assert_int_equal(list(off, false, &err, NULL), -EPROTO);
	assert_non_null(strstr(err.text, "etcd 3.5.30 is there"));
	assert_non_null(strstr(err.text, "--enable-grpc-gateway=true"));
	assert_int_equal(list(web, false, &err, NULL), -EPROTO);
	assert_non_null(strstr(err.text, "no etcd is there"));
	assert_int_equal(list(name, false, &err, NULL), -EPROTO);
	assert_non_null(strstr(err.text, "--host-whitelist"));
	assert_int_equal(list(cn, false, &err, NULL), -EPROTO);
	assert_non_null(strstr(err.text, "must have no Common Name"));
}

/* -- watches --------------------------------------------------------------------------- */

#define AT(revision)	  "\"header\":{\"cluster_id\":\"1\",\"revision\":\"" revision "\"}"
#define CREATED(revision) "{\"result\":{" AT(revision) ",\"created\":true}}\n"
/* "/p/a" and "/p/b" */
#define PUT(key, revision)                                                                         \
	"{\"kv\":{\"key\":\"" key "\",\"create_revision\":\"6\",\"mod_revision\":\"" revision      \
	"\",\"value\":\"eA==\"}}"
#define A "L3AvYQ=="
#define B "L3AvYg=="

/* The newest change that was told, read before a watch goes on. */
#define PROOF(key, created, modified)                                                              \
	OK "{" AT("7") ",\"kvs\":[{\"key\":\"" key "\",\"create_revision\":\"" created             \
		       "\",\"mod_revision\":\"" modified "\"}]}"

static int watch(struct store *s, struct told *told, struct err *err)
{
	const struct store_handler handler = HANDLER(*told);

	buf_reset(&told->text);
	assert_int_equal(buf_adds(&told->text, ""), 0);
	*err = ERR_INIT;
	return store_watch(s, &handler, 0, err);
}

static void the_position_moves_with_the_last_fragment(void **state)
{
	static const char *const answers[] = {
		LISTED,
		OK CREATED("5") "{\"result\":{" AT("7") ",\"events\":[" PUT(
			A, "6") "],\"fragment\":true}}\n",
		OK "{" AT("7") "}", /* no change was told yet */
		OK CREATED("7") "{\"result\":{" AT("7") ",\"events\":[" PUT(
			A,
			"6") "],\"fragment\":true}}\n{\"result\":{" AT("7") ",\"events\":[" PUT(B,
												"7") "]}}\n",
		PROOF(B, "6", "7"),
		OK CREATED("7"),
		NULL,
	};
	struct buf requests = BUF_INIT;
	struct told told = { .text = BUF_INIT };
	const struct store_handler handler = HANDLER(told);
	struct err err = ERR_INIT;
	struct script script;
	struct store *s;

	script_start(&script, answers);
	s = open_at(&script, false);
	SHOULD_WORK(store_list(s, &handler, &err), &err);
	assert_int_equal(watch(s, &told, &err), -ECONNRESET);
	assert_string_equal(told.text.data, "+a ");
	assert_int_equal(s->position.revision, 5);
	assert_int_equal(watch(s, &told, &err), -ECONNRESET);
	assert_string_equal(told.text.data, "+a +b ");
	assert_int_equal(s->position.revision, 7);
	assert_int_equal(watch(s, &told, &err), -ECONNRESET);
	assert_string_equal(told.text.data, "");
	script_end(&script, &requests);
	assert_non_null(strstr(requests.data, "\"fragment\":true"));
	assert_non_null(strstr(requests.data, "\"start_revision\":\"8\""));
	assert_non_null(strstr(requests.data, "Grpc-Metadata-Hasleader: true"));
	store_close(s);
	buf_done(&requests);
	buf_done(&told.text);
}

#define QUORUM_AT(revision) OK "{" AT(revision) "}"

static void a_member_that_lags_is_told_from_a_store_that_was_set_back(void **state)
{
	static const char *const lagging[] = {
		LISTED, OK CREATED("3"), QUORUM_AT("6"),
		OK CREATED("3") "{\"result\":{" AT("6") ",\"events\":[" PUT(A, "6") "]}}\n", NULL
	};
	static const char *const back[] = { LISTED, OK CREATED("3"), QUORUM_AT("4"), NULL };
	struct told told = { .text = BUF_INIT };
	const struct store_handler handler = HANDLER(told);
	struct err err = ERR_INIT;
	struct script script;
	struct store *s;

	script_start(&script, lagging);
	s = open_at(&script, false);
	SHOULD_WORK(store_list(s, &handler, &err), &err);
	assert_int_equal(watch(s, &told, &err), -ECONNRESET);
	assert_string_equal(told.text.data, "+a ");
	store_close(s);
	script_end(&script, NULL);
	script_start(&script, back);
	s = open_at(&script, false);
	SHOULD_WORK(store_list(s, &handler, &err), &err);
	assert_int_equal(watch(s, &told, &err), -ESTALE);
	assert_non_null(strstr(err.text, "restored"));
	store_close(s);
	script_end(&script, NULL);
	buf_done(&told.text);
}

/* Names in camel case, numbers as numbers, enumerations as numbers. */
static void answers_of_other_versions_are_read_alike(void **state)
{
	static const char *const answers[] = {
		OK "{\"header\":{\"clusterId\":1,\"revision\":5},\"kvs\":[{\"key\":\"" A
		   "\",\"createRevision\":2,\"modRevision\":3,\"value\":\"eA==\"}]}",
		OK "{\"result\":{\"header\":{\"clusterId\":1,\"revision\":5},\"created\":true}}"
		   "{\"result\":{\"header\":{\"clusterId\":1,\"revision\":6},\"events\":[{\"kv\":"
		   "{\"key\":\"" A "\",\"createRevision\":2,\"modRevision\":3,\"value\":\"eA==\"}},"
		   "{\"type\":1,\"kv\":{\"key\":\"" A "\",\"modRevision\":6}}]}}",
		/* The newest change, as it stands and as it was: neither is there any more. */
		OK "{\"header\":{\"clusterId\":1,\"revision\":9}}",
		OK "{\"error\":{\"code\":11,\"message\":"
		   "\"etcdserver: mvcc: required revision has been compacted\",\"details\":[]}}",
		OK "{\"result\":{\"header\":{\"clusterId\":1,\"revision\":9},\"canceled\":true,"
		   "\"compactRevision\":8}}",
		OK "{\"error\":{\"code\":14,\"message\":\"no leader\",\"details\":[]}}",
		NULL,
	};
	struct told told = { .text = BUF_INIT };
	const struct store_handler handler = HANDLER(told);
	struct err err = ERR_INIT;
	struct script script;
	struct store *s;

	script_start(&script, answers);
	s = open_at(&script, false);
	SHOULD_WORK(store_list(s, &handler, &err), &err);
	assert_string_equal(told.text.data, "+a ");
	assert_int_equal(watch(s, &told, &err), -ECONNRESET);
	assert_string_equal(told.text.data, "-a ");
	/* The newest change first, then our position: neither is there any more. */
	assert_int_equal(watch(s, &told, &err), -EAGAIN);
	assert_non_null(strstr(err.text, "no leader"));
	store_close(s);
	script_end(&script, NULL);
	buf_done(&told.text);
}

static int setup(void **state)
{
	assert_int_equal(http_global_init(NULL), 0);
	(void)signal(SIGPIPE, SIG_IGN);
	assert_non_null(mkdtemp(folder));
	return 0;
}

static int teardown(void **state)
{
	return nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tls_files_are_checked),
		cmocka_unit_test(tls_files_exclude_plain_text),
		cmocka_unit_test(agents_try_the_endpoints_in_orders_of_their_own),
		cmocka_unit_test(a_refused_token_is_replaced_once),
		cmocka_unit_test(what_a_login_cannot_mend_is_told),
		cmocka_unit_test(what_is_no_gateway_is_told_with_what_to_do),
		cmocka_unit_test(the_position_moves_with_the_last_fragment),
		cmocka_unit_test(a_member_that_lags_is_told_from_a_store_that_was_set_back),
		cmocka_unit_test(answers_of_other_versions_are_read_alike),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
