#!/usr/bin/env bash
# Makes build/deb/openclaw-proxy_VERSION_ARCH.deb of what `make install` puts there. Called by `make deb`, behind a build.
# What it depends on is read from the binary; owners in the package are root's (fakeroot).
set -eu
cd "$(dirname "$0")/.."
name=openclaw-proxy version=$(cat VERSION) arch=$(dpkg --print-architecture)
out=$PWD/build/deb root=$PWD/build/deb/root
rm -rf "$out" && mkdir -p "$out/debian" "$root/DEBIAN"
date=$(git log -1 --format=%cD 2>/dev/null) || date=$(date -R)
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(date -d "$date" +%s)}
umask 022

make -s install DESTDIR="$root" PREFIX=/usr STRIP="strip --remove-section=.comment --remove-section=.note" >/dev/null
doc=$root/usr/share/doc/$name
printf '%s (%s) unstable; urgency=medium\n\n  * See the repository.\n\n -- %s  %s\n' "$name" "$version" "OpenClaw <openclaw@localhost>" "$date" |
  gzip -9n >"$doc/changelog.gz"
install -m 644 deploy/debian/copyright "$doc/copyright"
gzip -9n "$root/usr/share/man/man1/$name.1"

printf 'Source: %s\n\nPackage: %s\nArchitecture: any\nDescription: %s\n' "$name" "$name" "$name" >"$out/debian/control"
depends=$(cd "$out" && dpkg-shlibdeps -O -e"$root/usr/bin/$name" 2>/dev/null | sed -n 's/^shlibs:Depends=//p')
[ -n "$depends" ]
sed -e "s/@VERSION@/$version/; s/@ARCH@/$arch/; s/@DEPENDS@/$depends/; s/@SIZE@/$(du -sk --exclude=DEBIAN "$root" | cut -f1)/" deploy/debian/control >"$root/DEBIAN/control"
echo /etc/openclaw/openclaw.yaml >"$root/DEBIAN/conffiles"
install -m 755 deploy/debian/postinst deploy/debian/prerm deploy/debian/postrm "$root/DEBIAN/"
(cd "$root" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
find "$root" -newermt "@$SOURCE_DATE_EPOCH" -exec touch -hd "@$SOURCE_DATE_EPOCH" {} +
fakeroot dpkg-deb --root-owner-group -Zxz --build "$root" "$out/${name}_${version}_$arch.deb" >/dev/null
echo "build/deb/${name}_${version}_$arch.deb"
