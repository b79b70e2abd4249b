# bash completion for q2q-tun                                  -*- shell-script -*-

_q2q_tun_peers() {
    q2q-tun --timeout 2 --json status 2>/dev/null |
        sed -nE '/"peers"/,$ s/^ *"address": "([^"]+)".*/\1/p'
}

_q2q_tun() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} word command="" i
    local commands="register authorize identity up down wait status doctor ping log peers requests allow deny"

    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        case $word in
        --control | --as | --timeout) i=$((i + 1)) ;;
        -*) ;;
        *)
            command=$word
            break
            ;;
        esac
    done

    case $previous in
    --control | --password-file | -p) compopt -o default; COMPREPLY=(); return ;;
    --path | -P) mapfile -t COMPREPLY < <(compgen -W "auto direct relay lan" -- "$current"); return ;;
    esac

    local words=""
    if [ -z "$command" ]; then
        words="$commands --control --json --as --timeout --help --version"
    else
        case $command in
        register) words="--password-file --invite --no-authorize --server --yes" ;;
        authorize) words="--password-file --server --yes" ;;
        up) words="--wait --path --yes $(_q2q_tun_peers)" ;;
        down) words="--all $(_q2q_tun_peers)" ;;
        wait) words="--direct --timeout $(_q2q_tun_peers)" ;;
        status) words="--watch --json $(_q2q_tun_peers)" ;;
        doctor) words="--bundle --json $(_q2q_tun_peers)" ;;
        ping) words="--count --interval --size --until-direct $(_q2q_tun_peers)" ;;
        log) words="--follow --lines" ;;
        peers) words="list forget pin $(_q2q_tun_peers)" ;;
        identity) words="list show default rotate export import" ;;
        allow) words="--for --yes $(_q2q_tun_peers)" ;;
        deny) words="$(_q2q_tun_peers)" ;;
        esac
        words="$words --json --help"
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}

complete -F _q2q_tun q2q-tun
