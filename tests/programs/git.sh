# platforms: systrap ptrace
# timeout: 120

# A repository from init to clone. Dates and names are fixed, so that hashes are.
set -e
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.test GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.test
export GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z' HOME=/root
git config --global init.defaultBranch main
cd /root && git init -q repository && cd repository
for i in $(seq 1 50); do echo "file $i" > file$i; done
mkdir sub && cp -r /usr/share/perl5 sub/
git add . && git commit -q -m first
for i in $(seq 1 10); do echo "change $i" >> file$i; git commit -q -a -m "change $i"; done
git log --oneline | cat
git rev-parse HEAD
git checkout -q -b branch HEAD~5 && echo other > other && git add other && git commit -q -m other
git merge -q -m merged main && git log --graph --oneline | head -n 8
git diff --stat HEAD~1 | tail -n 2
git clone -q /root/repository /root/clone && cd /root/clone && git rev-parse HEAD && git status --short | wc -l
git clone -q --no-local file:///root/repository /root/clone2 && git -C /root/clone2 fsck --no-progress && ls /root/clone2 | wc -l
cd /root/repository && git gc -q && git count-objects -v | grep -E '^(count|packs|in-pack)'
git stash list; echo dirty >> file1; git stash -q; git stash pop -q; git diff --shortstat
git archive HEAD | sha256sum
git grep -c file | wc -l
