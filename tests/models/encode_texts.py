"""tests/models/encode_texts.py FOLDER

Encodes the texts of FOLDER/texts.json (a list of strings) with Hugging Face's tokenizers and FOLDER's vocab.json and
merges.txt; writes the tokens to FOLDER/ids.json and the tokenizer itself to FOLDER/tokenizer.json."""
import json
import sys

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

folder = sys.argv[1]
tokenizer = Tokenizer(models.BPE.from_file(folder + "/vocab.json", folder + "/merges.txt"))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
tokenizer.decoder = decoders.ByteLevel()
tokenizer.add_special_tokens([AddedToken("<|endoftext|>", normalized=False)])
with open(folder + "/texts.json", encoding="utf-8") as file:
    texts = json.load(file)
with open(folder + "/ids.json", "w", encoding="utf-8") as file:
    json.dump([tokenizer.encode(text).ids for text in texts], file)
tokenizer.save(folder + "/tokenizer.json")
