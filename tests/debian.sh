# Packages of another release of Debian, without a trace in the system's own: for scripts to source.

KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

# The mirror this machine already installs its own release from, in either of
# apt's two formats. Third-party archives are told apart by suite and component;
# a path that ends in /debian wins should several be left.
mirror() {
    local codename files=() file
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
        [[ $file == *.list || $file == *.sources ]] && [[ -r $file ]] && files+=("$file")
    done
    awk -v codename="$codename" '
        function has(list, word) { return index(" " list " ", " " word " ") > 0 }
        function ours(words,    n, i, w) {
            n = split(words, w, " ")
            for (i = 1; i <= n; i++)
                if (w[i] == codename || w[i] ~ /^(stable|testing|unstable|sid)$/) return 1
        }
        function stanza(    n, i, u) {
            if (ours(suites) && has(components, "main")) {
                n = split(uris, u, " ")
                for (i = 1; i <= n; i++) print u[i]
            }
            uris = suites = components = ""
        }
        FNR == 1 { stanza() }
        /^[ \t]*#/ { next }
        FILENAME ~ /\.list$/ {
            sub(/\[[^]]*\]/, "")
            if ($1 == "deb" && ours($3) && has($0, "main")) print $2
            next
        }
        /^[ \t]*$/ { stanza(); next }
        { key = tolower($1); value = $0; sub(/^[^:]*:[ \t]*/, "", value) }
        key == "uris:" { uris = value }
        key == "suites:" { suites = value }
        key == "components:" { components = value }
        END { stanza() }
    ' "${files[@]}" </dev/null |
        sed 's,/*$,,' | awk '/\/debian$/ { print "0", $0; next } { print "1", $0 }' |
        sort -s -k1,1 | awk 'NR == 1 { print $2 }'
}

# private_apt DIR LINE: an apt that knows that one source and nothing of the
# system's state, so that nothing of the system's changes. Of the system's
# configuration only how to fetch is taken over (proxies, certificates, ...).
# An empty status file makes `install --download-only` fetch all dependencies.
private_apt() {
    local dir=$1 line=$2
    mkdir -p "$dir/state/lists/partial" "$dir/cache/archives/partial"
    : >"$dir/state/status"
    echo "$line" >"$dir/sources.list"
    {
        apt-config dump | grep '^Acquire::' |
            grep -Ev '^Acquire::(IndexTargets|Changelogs|cdrom)' || true
        cat <<CONF
Dir::Etc::Main "/dev/null";
Dir::Etc::Parts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::Etc::SourceList "$dir/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State "$dir/state";
Dir::State::status "$dir/state/status";
Dir::Cache "$dir/cache";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
Acquire::Languages "none";
Acquire::Retries "3";
CONF
    } >"$dir/apt.conf"
    APT_CONFIG=$dir/apt.conf apt-get update -q
}
