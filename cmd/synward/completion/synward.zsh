#compdef synward
# zsh completion for synward: the program itself knows its commands and flags.
_synward() {
	local -a found
	found=(${(f)"$($words[1] complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)"})
	if (( $#found )); then
		compadd -a found
	else
		_files
	fi
}
if [ "$funcstack[1]" = "_synward" ]; then
	_synward "$@"
else
	compdef _synward synward
fi
