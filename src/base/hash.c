/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "poplin/base/hash.h"

#include <sha2.h>
#include <stdarg.h>
#include <string.h>

void hash_hex(char *ret, size_t size, ...)
{
	char hex[SHA256_DIGEST_STRING_LENGTH];
	const char *string;
	va_list args;
	SHA2_CTX ctx;

	SHA256Init(&ctx);
	va_start(args, size);
	/* With its NUL, each string ends where it ends. */
	while ((string = va_arg(args, const char *)))
		SHA256Update(&ctx, (const uint8_t *)string, strlen(string) + 1);
	va_end(args);
	SHA256End(&ctx, hex);
	strlcpy(ret, hex, size);
}
