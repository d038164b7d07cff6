# What brings the binary to where it runs. Included by the Makefile: make install, uninstall, deb, image, deploy.
#
#   PREFIX      where it belongs: /usr/local
#   SYSCONFDIR  where its configuration is: /etc; of another PREFIX than /usr and /usr/local its own etc
#   DESTDIR     put before each path, for packages
#
# An installed binary needs nothing of this tree: the Lua library and the policies are inside, lua-cjson is the system's.

PREFIX ?= /usr/local
SYSCONFDIR ?= $(if $(filter /usr /usr/local,$(PREFIX)),/etc,$(PREFIX)/etc)
UNITDIR ?= $(PREFIX)/lib/systemd/system
BINDIR = $(DESTDIR)$(PREFIX)/bin
CONFDIR = $(DESTDIR)$(SYSCONFDIR)/openclaw
STRIP ?= strip
IMAGE ?= openclaw-proxy
.PHONY: install uninstall deb image deploy

install: build ## put the binary, its manual page, an example and the systemd unit below PREFIX; DESTDIR= for packages
	@install -d $(BINDIR) $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/doc/openclaw-proxy $(DESTDIR)$(UNITDIR) \
	  $(DESTDIR)$(PREFIX)/lib/sysusers.d $(CONFDIR)/policies
	@install -m 755 $(BIN) $(BINDIR)/openclaw-proxy.new
	@$(STRIP) $(BINDIR)/openclaw-proxy.new
	@mv $(BINDIR)/openclaw-proxy.new $(BINDIR)/openclaw-proxy
	@sed 's|@VERSION@|$(VERSION)|' deploy/openclaw-proxy.1 >$(DESTDIR)$(PREFIX)/share/man/man1/openclaw-proxy.1
	@install -m 644 config/openclaw.yaml.example deploy/systemd/credentials.conf $(DESTDIR)$(PREFIX)/share/doc/openclaw-proxy/
	@sed 's|/usr/bin/openclaw-proxy|$(PREFIX)/bin/openclaw-proxy|; s|/etc/openclaw/|$(SYSCONFDIR)/openclaw/|' deploy/systemd/openclaw.service >$(DESTDIR)$(UNITDIR)/openclaw.service
	@install -m 644 deploy/systemd/openclaw.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/openclaw.conf
	@[ -e $(CONFDIR)/openclaw.yaml ] || install -m 644 config/openclaw.yaml.example $(CONFDIR)/openclaw.yaml
	@echo "installed $(BINDIR)/openclaw-proxy; its configuration is $(CONFDIR)/openclaw.yaml"

uninstall: ## remove what make install put there; the configuration stays
	@rm -f $(BINDIR)/openclaw-proxy $(DESTDIR)$(PREFIX)/share/man/man1/openclaw-proxy.1 $(DESTDIR)$(UNITDIR)/openclaw.service \
	  $(DESTDIR)$(PREFIX)/lib/sysusers.d/openclaw.conf
	@rm -rf $(DESTDIR)$(PREFIX)/share/doc/openclaw-proxy

DEPS_DEB := dpkg-dev fakeroot
deb: build ## build/deb/openclaw-proxy_VERSION_ARCH.deb
	$(call install,$(DEPS_DEB))
	@bash deploy/deb.sh

image: ## the container image $(IMAGE), with docker, podman or buildah, whichever is there
	@bash deploy/image.sh $(IMAGE)

deploy: testdeps ## check the package, the unit, the manifests and the chart
	@bash tests/run.sh deploy
