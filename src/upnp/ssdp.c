/* ssdp - how a gateway is found: a question in a datagram, and what comes back. */
#include "upnp/upnp.h"

#include <ctype.h>
#include <stdio.h>

#define ANSWER_BYTES_MAX 2048
#define WANTED           "urn:schemas-upnp-org:device:InternetGatewayDevice:"

size_t upnp_search(const char *host, unsigned version, char out[static UPNP_SEARCH_BYTES])
{
	const int n = snprintf(out, UPNP_SEARCH_BYTES,
			       "M-SEARCH * HTTP/1.1\r\n"
			       "HOST: %s:%d\r\n"
			       "MAN: \"ssdp:discover\"\r\n"
			       "MX: 1\r\n"
			       "ST: " WANTED "%u\r\n"
			       "\r\n",
			       host, UPNP_PORT, version);

	return n > 0 && n < UPNP_SEARCH_BYTES ? (size_t)n : 0;
}

/* Cuts one line off; without its end, and without spaces around. False: there is no more. */
static bool next_line(const char **at, const char *end, const char **ret_line, size_t *ret_bytes)
{
	const char *line = *at, *stop;

	if (line >= end)
		return false;
	stop = memchr(line, '\n', (size_t)(end - line));
	*at = stop ? stop + 1 : end;
	if (!stop)
		stop = end;
	while (stop > line && isspace((unsigned char)stop[-1]))
		stop--;
	*ret_line = line;
	*ret_bytes = (size_t)(stop - line);
	return true;
}

/* The value of a header, if that line is it. NULL: it is not. */
static const char *value_of(const char *line, size_t *line_bytes, const char *name)
{
	const size_t name_bytes = strlen(name);
	const char *end = line + *line_bytes;

	if (*line_bytes <= name_bytes || line[name_bytes] != ':')
		return NULL;
	for (size_t i = 0; i < name_bytes; i++)
		if (toupper((unsigned char)line[i]) != name[i])
			return NULL;
	line += name_bytes + 1;
	while (line < end && (*line == ' ' || *line == '\t'))
		line++;
	*line_bytes = (size_t)(end - line);
	return line;
}

static bool begins(const char *text, size_t text_bytes, const char *with)
{
	return text_bytes >= strlen(with) && memcmp(text, with, strlen(with)) == 0;
}

int upnp_search_answer(const void *data, size_t data_bytes, const struct ip_address *gateway,
		       char ret_url[static UPNP_URL_BYTES])
{
	const char *at = data, *end = at + data_bytes, *line, *value;
	char url[UPNP_URL_BYTES] = "";
	bool wanted = false;
	size_t n_bytes;

	if (data_bytes > ANSWER_BYTES_MAX || memchr(data, '\0', data_bytes) ||
	    !next_line(&at, end, &line, &n_bytes) ||
	    (!begins(line, n_bytes, "HTTP/1.1 200") && !begins(line, n_bytes, "HTTP/1.0 200")))
		return -EBADMSG;
	while (next_line(&at, end, &line, &n_bytes) && n_bytes > 0) {
		size_t value_bytes = n_bytes;

		value = value_of(line, &value_bytes, "ST");
		wanted = wanted || (value && begins(value, value_bytes, WANTED));
		value_bytes = n_bytes;
		value = value_of(line, &value_bytes, "LOCATION");
		if (!value)
			continue;
		if (value_bytes >= sizeof(url) || *url)
			return -EBADMSG;
		memcpy(url, value, value_bytes);
		url[value_bytes] = '\0';
	}
	if (!wanted || !upnp_url_is_at(url, gateway))
		return -EBADMSG;
	memcpy(ret_url, url, sizeof(url));
	return 0;
}

bool upnp_url_is_at(const char *url, const struct ip_address *gateway)
{
	char host[IP_TEXT_BYTES];
	size_t n_bytes;

	for (const char *c = url; *c; c++)
		if (*c <= ' ' || *c > '~')
			return false;
	ip_format(gateway, host);
	n_bytes = strlen(host);
	if (!begins(url, strlen(url), "http://"))
		return false;
	url += strlen("http://");
	if (!begins(url, strlen(url), host))
		return false;
	url += n_bytes;
	if (*url == ':') {
		unsigned long port = 0;
		size_t n = 0;

		for (url++; isdigit((unsigned char)*url) && n < 6; url++, n++)
			port = port * 10 + (unsigned long)(*url - '0');
		if (port == 0 || port > UINT16_MAX)
			return false;
	}
	return *url == '/' || *url == '\0';
}
